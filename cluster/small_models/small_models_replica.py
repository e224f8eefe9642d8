"""``SmallModelsReplica``: a replica of the deployment ``SmallModels``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from cluster.autoscaling.busy_counter import BusyCounter
from cluster.cache.cache_reply import CacheReply
from cluster.cache.config import SemanticCacheConfig
from cluster.cache.deployment import redis_parts
from cluster.cache.pair_stage import read_pair_stage
from cluster.cache.semantic_cache_replica import SemanticCacheReplica
from cluster.config import StateConfig
from cluster.embedder.config import EmbedderConfig
from cluster.embedder.embedder_replica import EmbedderReplica, load_embedder
from cluster.embedder.embedder_reply import EmbedderReply
from cluster.safety.classifier_replica import ClassifierReplica
from cluster.safety.classifier_reply import ClassifierReply
from cluster.safety.config import ClassifierConfig
from cluster.telemetry.config import TelemetryConfig
from router.ports.answer_cache import HitFeedback, SemanticQuestion


class HostedModels(NamedTuple):
    """What a replica runs. None: it does not run that one. ``cache`` needs ``embedder``, and a Redis in ``state``."""

    classifier: ClassifierConfig | None
    embedder: EmbedderConfig | None
    cache: SemanticCacheConfig | None
    state: StateConfig


class SmallModelsReplica:
    """The actor of one replica. It has the methods of the replicas of ``SafetyClassifier``, ``Embedder`` and
    ``SemanticCache``, each of which computes on a thread of its own. The cache uses the embedder of this process.

    The constructor loads the models. It must run on the actor's event loop, as Serve runs it. It raises as the
    constructors of the three replicas do.
    """

    def __init__(self, hosted: HostedModels, telemetry: TelemetryConfig | None = None) -> None:
        self._classifier: ClassifierReplica | None = None
        self._embedder: EmbedderReplica | None = None
        self._cache: SemanticCacheReplica | None = None
        if hosted.classifier is not None:
            self._classifier = ClassifierReplica(hosted.classifier, telemetry=telemetry)
        if hosted.embedder is not None:
            embedder = load_embedder(hosted.embedder)
            self._embedder = EmbedderReplica(hosted.embedder, lambda _: embedder, telemetry)
            if hosted.cache is not None:
                make_parts = partial(redis_parts, hosted.cache, hosted.state, read_pair_stage)
                self._cache = SemanticCacheReplica(hosted.cache, make_parts, embedder, telemetry)
        self._busy = BusyCounter()

    async def classify(
        self, texts: Sequence[str], tenant: str = "", trace: Mapping[str, str] | None = None, *, urgent: bool = False
    ) -> ClassifierReply:
        """As ``ClassifierReplica.classify``."""
        assert self._classifier is not None, "routers have a link to the classifier only if it is hosted"
        self._busy.count()
        return await self._classifier.classify(texts, tenant, trace, urgent=urgent)

    async def embed(
        self, texts: Sequence[str], tenant: str = "", trace: Mapping[str, str] | None = None
    ) -> EmbedderReply:
        """As ``EmbedderReplica.embed``."""
        assert self._embedder is not None, "routers have a link to the embedder only if it is hosted"
        self._busy.count()
        return await self._embedder.embed(texts, tenant, trace)

    async def lookup(self, question: SemanticQuestion, trace: Mapping[str, str] | None = None) -> CacheReply:
        """As ``SemanticCacheReplica.lookup``."""
        assert self._cache is not None, "routers have a link to the cache only if it is hosted"
        self._busy.count()
        return await self._cache.lookup(question, trace)

    async def feedback(self, feedback: HitFeedback) -> CacheReply:
        """As ``SemanticCacheReplica.feedback``."""
        assert self._cache is not None, "routers have a link to the cache only if it is hosted"
        return await self._cache.feedback(feedback)

    async def status(self) -> dict[str, Any]:
        """Returns the state of the semantic cache, as ``SemanticCacheReplica.status``; without one the process id
        alone."""
        return {"pid": os.getpid()} if self._cache is None else await self._cache.status()

    async def pid(self) -> int:
        """Returns the process id, for operators and tests."""
        return os.getpid()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Returns the numbers by which the deployment is scaled, if it is (``busy_report``)."""
        return self._busy.numbers()

    def check_health(self) -> None:
        """Raises ModelStuckError if a batch takes too long, and FollowerStoppedError if the cache no longer follows
        changes. Serve calls it every ``health_check_period_s``."""
        for replica in (self._classifier, self._embedder, self._cache):
            if replica is not None:
                replica.check_health()

    def __del__(self) -> None:
        # Serve calls it when a replica ends, and not those of the three.
        for name in ("_classifier", "_embedder", "_cache"):  # absent if the constructor failed
            if replica := getattr(self, name, None):
                replica.__del__()
