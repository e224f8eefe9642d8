"""``RouterPorts``: what a router is given from outside, beside its config and the backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from router.admin.overview_api import OverviewSources
from router.ports.answer_cache import EntryStore, SemanticIndex
from router.ports.cache_metrics import CacheMetrics
from router.ports.clock import Clock, SystemClock
from router.ports.collection_store import CollectionStore
from router.ports.embedder import Embedder
from router.ports.idempotency_store import IdempotencyStore
from router.ports.jwks_source import JwksSource
from router.ports.prompt_store import PromptStore
from router.ports.safety_store import SafetyStore
from router.ports.stage_metrics import StageMetrics
from router.ports.state_store import StateStore
from router.ports.stream_store import StreamStore
from router.ports.text_log import TextLog
from router.ports.tier_scaling import TierScaling
from router.ports.tracer import Tracer
from router.ports.usage_metrics import UsageMetrics
from router.review.review_wiring import ReviewService
from router.tiers.quality_forecast import Forecaster
from safety.api import Guard, Oversight

MakeGuard = Callable[[Oversight, SafetyStore], Guard]
"""Makes the guard, with the way to the reviewers and the audit log, and the store that has the policies."""


@dataclass(frozen=True, slots=True)
class CacheParts:
    """The components of the answer cache.

    ``index`` finds stored questions of the same meaning; None: only exact matches are found. ``metrics`` counts
    look-ups; None: nothing is counted.
    """

    store: EntryStore
    index: SemanticIndex | None = None
    metrics: CacheMetrics | None = None


@dataclass(frozen=True, slots=True)
class RouterPorts:
    """What a router is given from outside. A store that is None is in the memory of this process.

    Stores: ``store`` has the state that all routers share, ``reviews`` the review queue and the audit log, ``prompts``
    the stored prompts, ``collections`` the documents that tenants keep, ``streams`` the events of detached streams,
    ``idempotency`` the idempotency keys of requests, and ``cache`` the parts of the answer cache, which is used if the
    config enables it.

    Services: ``forecaster`` chooses the tier for ``model: auto``; None: the complexity score does. ``jwks`` reads the
    keys of the token issuer; it is needed if ``access.jwt`` is set. ``make_guard`` makes the guard that inspects
    requests and answers; None: nothing is inspected. ``embedder`` makes vectors of texts; None: there are no
    embeddings, and passages are found by BM25 alone. ``scaling`` decides about the numbers of replicas; None: they are
    fixed.

    Observation: ``metrics`` counts usage; None: nothing is counted. ``tracer`` traces inference requests; None: nothing
    is traced. ``stages`` gets the times of their stages; None: they are not measured. ``texts`` logs the texts of
    tenants that have asked for it; None: of none. ``overview`` has what the cluster adds to the overview of
    administrators; None: nothing.
    """

    clock: Clock = field(default_factory=SystemClock)

    store: StateStore | None = None
    reviews: ReviewService | None = None
    prompts: PromptStore | None = None
    collections: CollectionStore | None = None
    streams: StreamStore | None = None
    idempotency: IdempotencyStore | None = None
    cache: CacheParts | None = None

    forecaster: Forecaster | None = None
    jwks: JwksSource | None = None
    make_guard: MakeGuard | None = None
    embedder: Embedder | None = None
    scaling: TierScaling | None = None

    metrics: UsageMetrics | None = None
    tracer: Tracer | None = None
    stages: StageMetrics | None = None
    texts: TextLog | None = None
    overview: OverviewSources | None = None
