"""``build_app``: joins the rooms of the router, the formats and the transport to the ASGI application."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp

from router.access.authenticator import Authenticator
from router.access.config_api_keys import ConfigKeys
from router.access.key_registry import KeyRegistry
from router.access.token_verifier import TokenVerifier
from router.admin.admin_api import AdminApi
from router.admin.cache_api import CacheApi
from router.admin.overview_api import OverviewApi, OverviewSources
from router.admin.policy_api import PolicyApi
from router.admin.prompt_api import PromptApi
from router.admin.review_api import ReviewApi
from router.admin.router_counts import RouterCounts
from router.admin.scaling_api import ScalingApi
from router.app import App
from router.cache.answer_cache import AnswerCache
from router.cache.cache_operations import CacheOperations
from router.collection_api import CollectionApi
from router.config.answer_cache import AnswerCacheConfig
from router.config.router import RouterConfig
from router.endpoint_protocol import Endpoint
from router.idempotency.idempotent_requests import IdempotentRequests
from router.ledger.ledger import Ledger
from router.limits.limiter import Limiter
from router.limits.router_concurrency import ConcurrencyLimit
from router.memory_collection_store import MemoryCollectionStore
from router.memory_entry_store import MemoryEntryStore
from router.memory_idempotency_store import MemoryIdempotencyStore
from router.memory_prompt_store import MemoryPromptStore
from router.memory_safety_store import MemorySafetyStore
from router.memory_store import MemoryStore
from router.memory_stream_store import MemoryStreamStore
from router.openai.chat import ChatEndpoint
from router.openai.completions import CompletionEndpoint
from router.pipeline import Pipeline
from router.ports.answer_cache import EntryStore, SemanticIndex
from router.ports.cache_metrics import CacheMetrics
from router.ports.clock import Clock, SystemClock
from router.ports.collection_store import CollectionStore
from router.ports.embedder import Embedder
from router.ports.idempotency_store import IdempotencyStore
from router.ports.jwks_source import JwksSource
from router.ports.prompt_store import PromptStore
from router.ports.safety_store import SafetyStore
from router.ports.stage_metrics import Operation, StageMetrics
from router.ports.state_store import StateStore
from router.ports.stream_store import StreamStore
from router.ports.text_log import TextLog
from router.ports.tier_backend import TierBackend
from router.ports.tier_scaling import TierScaling
from router.ports.tracer import NoTracer, Tracer
from router.ports.usage_metrics import NoUsageMetrics, UsageMetrics
from router.prompts.stored_prompts import StoredPrompts
from router.requests.collection_requests import CollectionRequests
from router.requests.embedding_requests import EmbeddingRequests
from router.requests.model_requests import ModelRequests
from router.requests.moderation_requests import ModerationRequests
from router.requests.request_accounting import RequestAccounting
from router.requests.request_inspection import RequestInspection
from router.requests.request_intake import RequestIntake
from router.requests.stream_requests import StreamRequests
from router.requests.text_logging import TextLogging
from router.resume.detached_streams import DetachedStreams
from router.retrieval.chunk_embedder import ChunkEmbedder
from router.retrieval.collections import Collections
from router.retrieval.retriever import Retriever
from router.review.review_wiring import ReviewService
from router.router_parts import RouterParts
from router.routes.admin import AdminRoute
from router.routes.collections import CollectionRoute
from router.routes.embeddings import EmbeddingRoute
from router.routes.health import HealthRoute
from router.routes.inference import InferenceRoute
from router.routes.models import ModelRoute
from router.routes.moderations import ModerationRoute
from router.routes.route import Route
from router.routes.streams import StreamRoute
from router.tiers.choose_tier import TierChoice
from router.tiers.quality_forecast import Forecaster
from router.timed_tracer import TimedTracer
from router.transport.requests_outliving_client import RequestsOutlivingClient
from safety.api import Guard, Oversight

ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": ChatEndpoint(),
    "/v1/completions": CompletionEndpoint(),
}

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


def answer_cache(config: AnswerCacheConfig, parts: CacheParts, clock: Clock) -> AnswerCache | None:
    """Returns the answer cache; None if ``config`` enables it for no tenant."""
    enabled = config.enabled or any(tenant.enabled for tenant in config.tenants.values())
    return AnswerCache(parts.store, config, clock, parts.metrics, parts.index) if enabled else None


def build_app(
    config: RouterConfig,
    backend: TierBackend,
    forecaster: Forecaster | None = None,
    clock: Clock | None = None,
    endpoints: Mapping[str, Endpoint] = ENDPOINTS,
    store: StateStore | None = None,
    jwks: JwksSource | None = None,
    make_guard: MakeGuard | None = None,
    metrics: UsageMetrics | None = None,
    reviews: ReviewService | None = None,
    embedder: Embedder | None = None,
    prompts: PromptStore | None = None,
    cache: CacheParts | None = None,
    collections: CollectionStore | None = None,
    streams: StreamStore | None = None,
    idempotency: IdempotencyStore | None = None,
    scaling: TierScaling | None = None,
    tracer: Tracer | None = None,
    overview: OverviewSources | None = None,
    texts: TextLog | None = None,
    stages: StageMetrics | None = None,
) -> ASGIApp:
    """Returns the ASGI application that serves the tiers of ``backend``.

    ``forecaster`` chooses the tier for ``model: auto``; None: the complexity score does. ``clock`` is the system's by
    default. ``endpoints`` maps paths to wire formats. ``store`` is the state that all routers share, by default the
    memory of this process. ``jwks`` reads the keys of the token issuer; it is needed if ``config.access.jwt`` is set.
    ``make_guard`` makes the guard that inspects requests and answers; None: nothing is inspected. ``metrics`` counts
    usage; None: nothing is counted. ``reviews`` has the review queue and the audit log, ``prompts`` the stored prompts,
    ``collections`` the documents that tenants keep, ``streams`` the events of detached streams, and ``idempotency`` the
    idempotency keys of requests. By default all of them are in the memory of this process. ``embedder`` makes vectors
    of texts; None: there are no embeddings, and passages are found by BM25 alone. ``cache`` are the parts of the answer
    cache, which is used if ``config.cache`` enables it; by default it stores in the memory of this process. ``scaling``
    decides about the numbers of replicas; None: they are fixed. ``tracer`` traces inference requests; None: nothing is
    traced. ``overview`` has what the cluster adds to the overview of administrators; None: nothing. ``texts`` logs the
    texts of tenants that have asked for it; None: of none. ``stages`` gets the times of the stages of inference
    requests; None: they are not measured.

    Raises ValueError for a secret of ``config.review`` that cannot be read.
    """
    clock = clock or SystemClock()
    store = store or MemoryStore(clock)
    tiers = [tier.name for tier in backend.tiers()]
    choice = TierChoice(tiers, config.auto, forecaster, config.aliases)
    registry = KeyRegistry(store, clock)
    authenticator = make_authenticator(config, registry, jwks, clock)
    metrics = counted = RouterCounts(metrics or NoUsageMetrics())
    ledger = Ledger(store, config.prices, clock, metrics)
    reviews = reviews or ReviewService(MemorySafetyStore(clock), config.review, clock)
    guard = None if make_guard is None else make_guard(reviews.oversight, reviews.store)
    book = StoredPrompts(prompts or MemoryPromptStore(), clock, config.prompts.cache_s)
    cache = cache or CacheParts(MemoryEntryStore(clock))
    answers = answer_cache(config.cache, cache, clock)
    stored = None if answers is None else CacheOperations(cache.store, answers, reviews.record_change)
    retriever = make_retriever(config, collections or MemoryCollectionStore(), embedder, clock)
    detached = DetachedStreams(streams or MemoryStreamStore(clock), config.resume, config.tenants, clock)
    limits = {name: tenant.limits for name, tenant in config.tenants.items()}
    limiter = Limiter(store, config.limits, limits, ledger.cost)
    concurrency = ConcurrencyLimit(config.max_concurrent_requests)
    intake = RequestIntake(authenticator, concurrency, config.max_body_bytes)
    accounting = RequestAccounting(ledger, limiter, metrics, config.limits.warn_at)
    inspection = RequestInspection(guard, metrics)
    keys = IdempotentRequests(idempotency or MemoryIdempotencyStore(clock), config.idempotency)
    pipeline = Pipeline(
        config,
        backend,
        choice,
        intake,
        accounting,
        limiter,
        ledger,
        clock,
        metrics,
        guard,
        answers,
        prompts=book,
        retriever=retriever,
        streams=detached,
        idempotency=keys,
        texts=TextLogging(texts, config.tenants),
    )
    management = AdminApi(
        authenticator,
        registry,
        store,
        backend,
        ReviewApi(reviews.desk, reviews.audit, clock),
        PolicyApi(None if guard is None else guard.admin),
        PromptApi(book, reviews.record_change),
        CacheApi(stored, clock, guard),
        ScalingApi(scaling, clock, reviews.record_change),
        OverviewApi(backend, store, scaling, clock, config.prices.currency, counted, overview or OverviewSources()),
        clock,
        config.prices.currency,
        limits,
        reviews.store.audit,
    )
    outliving = RequestsOutlivingClient()
    timeout_s, warn_at = config.request_timeout_s, config.limits.warn_at
    tracers = {each: tracer_of(each, tracer or NoTracer(), stages, clock) for each in Operation}
    aliases = config.embeddings.aliases
    names = ModelRequests(authenticator, choice, embedder, aliases)
    routes: list[Route] = [  # those of inference come first, since most requests are theirs
        *(
            InferenceRoute(
                path,
                endpoint,
                pipeline,
                detached,
                outliving,
                tracers[Operation.GENERATION],
                clock,
                timeout_s,
                warn_at,
            )
            for path, endpoint in endpoints.items()
        ),
        ModerationRoute(ModerationRequests(intake, accounting, guard, clock), tracers[Operation.MODERATION], timeout_s),
        EmbeddingRoute(
            EmbeddingRequests(intake, accounting, inspection, embedder, aliases, clock),
            tracers[Operation.EMBEDDINGS],
            timeout_s,
            warn_at,
        ),
        CollectionRoute(CollectionApi(CollectionRequests(intake, accounting, inspection, clock), retriever), timeout_s),
        StreamRoute(StreamRequests(authenticator, concurrency, detached), timeout_s),
        HealthRoute(backend),
        ModelRoute(names, backend, embedder, int(clock.now())),
        AdminRoute(management, timeout_s),
    ]
    parts = RouterParts(
        store=store,
        reviews=reviews,
        collections=retriever.collections,
        authenticator=authenticator,
        limiter=limiter,
        prompts=book,
        streams=detached,
        idempotency=keys,
        cache=answers,
        ledger=ledger,
        backend=backend,
        outliving=outliving,
        texts=texts,
    )
    return App(routes, config, parts)


def tracer_of(operation: Operation, tracer: Tracer, stages: StageMetrics | None, clock: Clock) -> Tracer:
    """Returns ``tracer``; with ``stages``, one that also gives them the times of the requests of ``operation``."""
    return tracer if stages is None else TimedTracer(tracer, stages.of(operation), clock.monotonic)


def make_authenticator(
    config: RouterConfig, registry: KeyRegistry, jwks: JwksSource | None, clock: Clock
) -> Authenticator:
    """Returns the authenticator for keys of ``config`` and of ``registry``, and for tokens if the issuer is set."""
    jwt = config.access.jwt
    tokens = None if jwt is None or jwks is None else TokenVerifier(jwt, jwks, clock)
    return Authenticator(config.access, ConfigKeys(config.keys), registry, tokens, clock)


def make_retriever(config: RouterConfig, store: CollectionStore, embedder: Embedder | None, clock: Clock) -> Retriever:
    """Returns the retriever of passages from a request's documents and from the collections of ``store``.

    Without an ``embedder``, passages are found by their words alone.
    """
    chunk_embedder = None if embedder is None else ChunkEmbedder(embedder)
    named = Collections(config.retrieval, store, chunk_embedder, clock)
    return Retriever(config.retrieval, named, chunk_embedder)
