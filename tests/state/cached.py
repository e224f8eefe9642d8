"""Entries of the answer cache, and ways to spoil them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import redis

from cluster.local.redis_server import RedisServer
from cluster.state import redis_names
from cluster.state.redis_entry_store import RedisEntryStore
from router.memory_entry_store import MemoryEntryStore
from router.ports.answer_cache import CacheBounds
from router.ports.cache_entry import CacheEntry
from tests.state.clock import MONDAY

ROOM = CacheBounds(1000, 1_000_000)
NOW_MS = int(MONDAY * 1000)

Store = MemoryEntryStore | RedisEntryStore


def key(number: int) -> str:
    return f"{number:064x}"


def entry(number: int = 1, tenant: str = "acme", version: int = 0, **fields: object) -> CacheEntry:
    """An entry of its own for each number, and for each version of it."""
    made = CacheEntry(
        f"{key(number)}-{version:012x}",
        tenant,
        key(number),
        key(9999),
        f"Question {number}?",
        "fast-model",
        "",
        NOW_MS,
        NOW_MS + 60_000,
        '{"answers":[]}',
    )
    return replace(made, **fields)  # type: ignore[arg-type]


async def all_of(batches: AsyncIterator[Sequence[CacheEntry]]) -> list[CacheEntry]:
    return [each async for batch in batches for each in batch]


def spoil(store: Store, server: RedisServer | None, tenant: str, entry_key: str, data: bytes) -> None:
    """Replaces what is stored under a key."""
    if isinstance(store, MemoryEntryStore):
        store._tenants[tenant].entries[entry_key].data = data
        return
    assert server is not None
    with redis.Redis.from_url(server.url) as client:
        client.set(redis_names.cache_entry(tenant, entry_key), data)
