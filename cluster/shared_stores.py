"""The stores that all routers share, in the Redis of the settings. Without one, each is in a router's own memory."""

from __future__ import annotations

from collections.abc import Callable

from cluster.config import StateConfig
from cluster.state.redis_collection_store import RedisCollections
from cluster.state.redis_entry_store import RedisEntryStore
from cluster.state.redis_idempotency_store import RedisIdempotencyStore
from cluster.state.redis_prompt_store import RedisPromptStore
from cluster.state.redis_safety_store import RedisSafetyStore
from cluster.state.redis_store import RedisStore
from cluster.state.redis_stream_store import RedisStreamStore
from router.config.review import ReviewConfig
from router.memory_entry_store import MemoryEntryStore
from router.memory_safety_store import MemorySafetyStore
from router.ports.answer_cache import EntryStore
from router.ports.clock import SystemClock
from router.ports.collection_store import CollectionStore
from router.ports.idempotency_store import IdempotencyStore
from router.ports.prompt_store import PromptStore
from router.ports.state_store import StateStore
from router.ports.stream_store import StreamStore
from router.review.review_wiring import ReviewService


def shared_state(config: StateConfig, on_lost: Callable[[], None] = lambda: None) -> StateStore | None:
    """Returns the store of ``config``; None if it names no Redis. ``on_lost`` is called for each entry that is lost.

    Raises ValueError for a URL that cannot be used, and OSError for a journal that cannot be written.
    """
    url = config.read_url()
    return None if url is None else RedisStore(config, url, on_lost=on_lost)


def shared_reviews(
    state: StateConfig, config: ReviewConfig, on_lost: Callable[[], None] = lambda: None
) -> ReviewService:
    """Returns the review service with the audit log. It keeps them in the Redis of ``state``, or in this process'
    memory if ``state`` names no Redis.

    Raises as ``shared_state`` does, and ValueError for a secret of ``config`` that cannot be read.
    """
    clock, url = SystemClock(), state.read_url()
    store = (
        MemorySafetyStore(clock) if url is None else RedisSafetyStore(state, url, config.audit_days, on_lost=on_lost)
    )
    return ReviewService(store, config, clock)


def shared_prompts(config: StateConfig) -> PromptStore | None:
    """Returns the store of prompts in the Redis of ``config``; None if it names no Redis. Raises as ``shared_state``
    does."""
    url = config.read_url()
    return None if url is None else RedisPromptStore(config, url)


def shared_answers(state: StateConfig) -> EntryStore:
    """Returns the store of cached answers, in the Redis of ``state``, or in this process' memory if ``state`` names no
    Redis. Raises ValueError for a URL that cannot be used."""
    url = state.read_url()
    return MemoryEntryStore(SystemClock()) if url is None else RedisEntryStore(state, url)


def shared_collections(config: StateConfig) -> CollectionStore | None:
    """Returns the store of the collections; None if ``config`` names no Redis. Raises ValueError for a URL that cannot
    be used."""
    url = config.read_url()
    return None if url is None else RedisCollections(config, url)


def shared_streams(config: StateConfig) -> StreamStore | None:
    """Returns the store of detached streams; None if ``config`` names no Redis. Raises ValueError for a URL that cannot
    be used."""
    url = config.read_url()
    return None if url is None else RedisStreamStore(config, url)


def shared_idempotency_keys(config: StateConfig) -> IdempotencyStore | None:
    """Returns the store of idempotency keys; None if ``config`` names no Redis. Raises ValueError for a URL that cannot
    be used."""
    url = config.read_url()
    return None if url is None else RedisIdempotencyStore(config, url)
