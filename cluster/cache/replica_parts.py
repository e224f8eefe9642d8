"""``RedisParts``: creates and connects the parts of a replica of the semantic cache."""

from __future__ import annotations

from collections.abc import Callable

from cluster.cache.calibrated_thresholds import CalibratedThresholds
from cluster.cache.config import SemanticCacheConfig
from cluster.cache.embedding_cache import EmbeddingCache
from cluster.cache.index_follower import IndexFollower
from cluster.cache.pair_stage import PairStage
from cluster.cache.semantic_lookup import LookupLimits, SemanticLookup
from cluster.cache.vector_index import IndexBounds, VectorIndex
from cluster.config import StateConfig
from cluster.state.redis_entry_store import RedisEntryStore
from cluster.state.redis_questions import RedisQuestions
from router.ports.clock import Clock, SystemClock
from router.ports.embedder import Embedder


class RedisParts:
    """The semantic index of one replica, and the follower that keeps it in line with the Redis at ``url``. ``pairs`` is
    the second stage. ``clock`` None: the system's. Implements ``LocalParts``. Raises ValueError for a wrong URL."""

    def __init__(
        self,
        config: SemanticCacheConfig,
        state: StateConfig,
        url: str,
        embedder: Embedder,
        pairs: PairStage,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._entries = RedisEntryStore(state, url, clock)
        self._questions = RedisQuestions(state, url, clock)
        embeddings = EmbeddingCache(config.recent_questions)
        self.follower = IndexFollower(
            self._entries, self._entries, self._questions, embedder, embeddings, index_maker(config, embedder), clock
        )
        threshold = CalibratedThresholds(pairs.table, self._questions, clock)
        limits = LookupLimits(config.candidates, config.min_similarity)
        self.index = SemanticLookup(
            self.follower, self._questions, embedder, embeddings, pairs.scorer, pairs.guard, threshold, limits, clock
        )

    async def start(self) -> None:
        await self._entries.start()
        await self._questions.start()

    async def close(self) -> None:
        await self._entries.close()
        await self._questions.close()


def index_maker(config: SemanticCacheConfig, embedder: Embedder) -> Callable[[], VectorIndex]:
    """Returns a function that makes an empty index for the vectors of ``embedder``, with the bounds in ``config``."""
    bounds = IndexBounds(config.tenant_entries, config.tenant_bytes, config.max_bytes)
    return lambda: VectorIndex(embedder.dimensions, bounds)
