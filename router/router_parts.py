"""``RouterParts``: what the endpoints of a router share. It is built, started and closed here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from router.access.authenticator import Authenticator
from router.access.config_api_keys import ConfigKeys
from router.access.key_registry import KeyRegistry
from router.access.token_verifier import TokenVerifier
from router.admin.router_counts import RouterCounts
from router.cache.answer_cache import AnswerCache
from router.cache.cache_operations import CacheOperations
from router.config.answer_cache import AnswerCacheConfig
from router.config.router import RouterConfig
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
from router.ports.clock import Clock
from router.ports.collection_store import CollectionStore
from router.ports.embedder import Embedder
from router.ports.jwks_source import JwksSource
from router.ports.tier_backend import OrphanedAttempt, TierBackend
from router.ports.usage_metrics import NoUsageMetrics
from router.prompts.stored_prompts import StoredPrompts
from router.requests.request_accounting import RequestAccounting
from router.requests.request_inspection import RequestInspection
from router.requests.request_intake import RequestIntake
from router.resume.detached_streams import DetachedStreams
from router.retrieval.chunk_embedder import ChunkEmbedder
from router.retrieval.collections import Collections
from router.retrieval.retriever import Retriever
from router.review.review_wiring import ReviewService
from router.router_ports import CacheParts, RouterPorts
from router.tiers.choose_tier import TierChoice
from router.transport.requests_outliving_client import RequestsOutlivingClient


class RouterParts:
    """The parts of a router that several of its endpoints use. ``guard`` None: no text is inspected. ``cache`` None:
    there is no answer cache, and no ``cache_operations``. ``texts`` None: no texts are logged.

    Raises ValueError for a secret of ``config.review`` that cannot be read.
    """

    def __init__(self, config: RouterConfig, backend: TierBackend, ports: RouterPorts) -> None:
        self.clock = clock = ports.clock
        self.backend = backend
        self.store = ports.store or MemoryStore(clock)
        self.choice = TierChoice([tier.name for tier in backend.tiers()], config.auto, ports.forecaster, config.aliases)
        # Who asks, how much it may have, and what it has had.
        self.registry = KeyRegistry(self.store, clock)
        self.authenticator = make_authenticator(config, self.registry, ports.jwks, clock)
        self.concurrency = ConcurrencyLimit(config.max_concurrent_requests)
        self.intake = RequestIntake(self.authenticator, self.concurrency, config.max_body_bytes)
        self.counts = RouterCounts(ports.metrics or NoUsageMetrics())
        self.ledger = Ledger(self.store, config.prices, clock, self.counts)
        self.tenant_limits = {name: tenant.limits for name, tenant in config.tenants.items()}
        self.limiter = Limiter(self.store, config.limits, self.tenant_limits, self.ledger.cost)
        self.accounting = RequestAccounting(self.ledger, self.limiter, self.counts, config.limits.warn_at)
        # What inspects texts, and the people who decide in doubt.
        self.reviews = ports.reviews or ReviewService(MemorySafetyStore(clock), config.review, clock)
        self.guard = None if ports.make_guard is None else ports.make_guard(self.reviews.oversight, self.reviews.store)
        self.inspection = RequestInspection(self.guard, self.counts)
        # What is kept from one request to another.
        self.prompts = StoredPrompts(ports.prompts or MemoryPromptStore(), clock, config.prompts.cache_s)
        self.retriever = make_retriever(config, ports.collections or MemoryCollectionStore(), ports.embedder, clock)
        self.streams = DetachedStreams(ports.streams or MemoryStreamStore(clock), config.resume, config.tenants, clock)
        self.idempotency = IdempotentRequests(ports.idempotency or MemoryIdempotencyStore(clock), config.idempotency)
        cache = ports.cache or CacheParts(MemoryEntryStore(clock))
        self.cache = make_answer_cache(config.cache, cache, clock)
        self.cache_operations = (
            None if self.cache is None else CacheOperations(cache.store, self.cache, self.reviews.record_change)
        )
        self.outliving = RequestsOutlivingClient()
        self.texts = ports.texts

    async def start(self) -> None:
        """Starts the stores, then what uses them, and the backend last, whose requests need all of them."""
        await self.store.start()
        await self.reviews.start()
        await self.retriever.collections.start()
        await self.authenticator.start()
        await self.limiter.start()
        await self.prompts.start()
        await self.streams.start()
        await self.idempotency.start()
        if self.cache is not None:
            await self.cache.start()
        if self.texts is not None:
            self.texts.start()
        await self.backend.start(self.adopt)

    async def close(self) -> None:
        """Closes what still generates, then the rest, and the store last.

        The ledger is closed before the backend, since lanes bring the token counts that its last entries wait for.
        """
        await self.outliving.close()
        await self.streams.close()
        await self.ledger.close()
        await self.prompts.close()
        await self.authenticator.close()
        await self.limiter.close()
        await self.idempotency.close()
        if self.cache is not None:
            await self.cache.close()
        await self.backend.close()
        if self.texts is not None:
            await asyncio.to_thread(self.texts.close)
        await self.retriever.collections.close()
        await self.reviews.close()
        await self.store.close()

    def adopt(self, orphans: Sequence[OrphanedAttempt]) -> None:
        """Writes the ledger entries of attempts whose router has died. Their reservations end when their leases
        expire."""
        for orphan in orphans:
            self.ledger.adopt(orphan)


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


def make_answer_cache(config: AnswerCacheConfig, parts: CacheParts, clock: Clock) -> AnswerCache | None:
    """Returns the answer cache; None if ``config`` enables it for no tenant."""
    enabled = config.enabled or any(tenant.enabled for tenant in config.tenants.values())
    return AnswerCache(parts.store, config, clock, parts.metrics, parts.index) if enabled else None
