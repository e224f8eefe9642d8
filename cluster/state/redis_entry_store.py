"""``RedisEntryStore``: the stored answers in Redis. Implements the router's ports ``EntryStore`` and ``EntryFeed``.

Each change of a tenant's entries is one call of a script, so it is atomic and takes one round trip. The feed is in
another slot of a Redis Cluster: a change is added to it right after it was made. If that fails, the index lacks an
entry, or still has one that is gone; both are misses.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from cluster.config import StateConfig
from cluster.state import redis_names
from cluster.state.circuit_breaker import BreakerState
from cluster.state.guarded_connections import GuardedConnections
from cluster.state.lua_script import LuaScript
from cluster.state.redis_client import Client
from router.ports.answer_cache import (
    AWAITED_MS,
    CacheBounds,
    CacheChange,
    CacheSize,
    ChangeKind,
    FeedGapError,
    Lease,
)
from router.ports.cache_entry import CacheEntry, PoisonedEntryError, decode_entry, encode_entry, key_of
from router.ports.clock import Clock, SystemClock
from router.ports.state_store import StateUnavailableError

logger = logging.getLogger(__name__)

MAX_LOOKUPS = 128  # at a time, for which requests wait
MAX_WRITES = 32
MAX_SCANS = 4
MAX_CHANGES = 100_000
"""Changes that the feed keeps, about 400 bytes each."""
BATCH = 200  # entries that are read with one call
KNOWN_S = 60.0  # after which a tenant is added to the set of tenants again: Redis may have lost its data


class RedisEntryStore:
    """The stored answers in the Redis at ``url``. Implements ``EntryStore`` and ``EntryFeed``.

    ``clock`` times the circuit breakers. ``script_clock`` replaces the Redis server's time in tests. ``max_changes``
    bounds the feed. Raises ValueError for a wrong URL.
    """

    def __init__(
        self,
        config: StateConfig,
        url: str,
        clock: Clock | None = None,
        script_clock: Clock | None = None,
        max_changes: int = MAX_CHANGES,
    ) -> None:
        clock = self._clock = clock or SystemClock()
        self._script_clock = script_clock
        self._max_changes = max_changes
        background_s = config.background_timeout_s
        self._lookups = GuardedConnections(
            "answer cache", config, url, clock, config.timeout_s, MAX_LOOKUPS, pipelined=True
        )
        self._writes = GuardedConnections(
            "answer cache, writes", config, url, clock, background_s, MAX_WRITES, pipelined=True
        )
        self._scans = GuardedConnections("answer cache, scans", config, url, clock, background_s, MAX_SCANS)
        self._reads = GuardedConnections("answer cache, feed", config, url, clock, background_s, 1)
        self._max_wait_s = background_s / 2  # a call that waits for a change must end before its deadline
        self._script = LuaScript("cache")
        self._feed_script = LuaScript("cache_feed")
        self._known_tenants: dict[str, float] = {}  # when each was added to the set, in monotonic seconds

    @property
    def breaker(self) -> BreakerState:
        """The state of the circuit breaker of look-ups."""
        return self._lookups.breaker

    async def start(self) -> None:
        try:
            await asyncio.gather(self._lookups.open(), self._writes.open())  # the first request finds them open
        except StateUnavailableError as error:
            logger.warning("starting without the answer cache: %s", error)

    async def close(self) -> None:
        for channel in (self._lookups, self._writes, self._scans, self._reads):
            await channel.close()

    async def get(self, tenant: str, key: str) -> CacheEntry | None:
        data = await self._lookups.call(self._calls("get", tenant, key))
        return None if data is None else decode_entry(data, tenant, key)

    async def find_or_lead(self, tenant: str, key: str, owner: str, lease_ms: int) -> CacheEntry | Lease:
        kind, found, *epoch = await self._lookups.call(self._calls("lead", tenant, key, owner, lease_ms, AWAITED_MS))
        if kind == b"entry":
            return decode_entry(found, tenant, key)
        return Lease(kind == b"leading", kind == b"unshared", int(found), int(epoch[0]))

    async def awaited(self, tenant: str, key: str, owner: str) -> bool:
        return bool(await self._lookups.call(self._calls("awaited", tenant, key, owner)))

    async def epoch(self, tenant: str) -> int:
        return int(await self._lookups.call(self._calls("epoch", tenant)))

    async def renew(self, tenant: str, key: str, owner: str, lease_ms: int) -> bool:
        return bool(await self._writes.call(self._calls("renew", tenant, key, owner, lease_ms)))

    async def release(self, tenant: str, key: str, owner: str, unshared_ms: int = 0) -> None:
        await self._writes.call(self._calls("release", tenant, key, owner, unshared_ms))

    async def put(self, entry: CacheEntry, bounds: CacheBounds, owner: str = "", epoch: int | None = None) -> bool:
        data, lifetime_ms = encode_entry(entry), entry.expires_ms - entry.created_ms
        if lifetime_ms <= 0 or len(data) > bounds.max_bytes:
            return False
        partition = entry.partition if entry.semantic else ""
        limits = lifetime_ms, bounds.max_entries, bounds.max_bytes
        store = self._calls("put", entry.tenant, entry.key, entry.id, partition, data, *limits, owner, _text(epoch))

        async def put(client: Client) -> bool:
            await self._know(client, entry.tenant)
            removed = await store(client)
            if removed is None:
                return False
            changes = _deletions(entry.tenant, removed)
            await self._tell(client, [*changes, *([_put_change(entry)] if entry.semantic else [])])
            return True

        return await self._writes.call(put)

    async def discard(self, tenant: str, key: str) -> bool:
        return bool(await self._drop(tenant, [(key, "")]))

    async def delete(self, tenant: str, entry_id: str) -> bool:
        return bool(await self._drop(tenant, [(key_of(entry_id), entry_id)]))

    async def delete_many(self, tenant: str, entry_ids: Sequence[str]) -> Sequence[str]:
        deleted: list[str] = []
        for start in range(0, len(entry_ids), BATCH):
            ids = {key_of(each): each for each in entry_ids[start : start + BATCH]}
            deleted += [ids[key] for key in await self._drop(tenant, list(ids.items()), begins_epoch=True)]
        return deleted

    async def clear(self, tenant: str) -> int:
        clear = self._calls("clear", tenant)

        async def run(client: Client) -> int:
            count = int(await clear(client))
            await self._tell(client, [json.dumps([ChangeKind.CLEAR.value, tenant, "", ""])])
            return count

        return await self._writes.call(run)

    async def tenants(self) -> Sequence[str]:
        return await self._scans.call(_tenants)

    async def entries(
        self, tenant: str | None = None, *, discard_poisoned: bool = False
    ) -> AsyncIterator[Sequence[CacheEntry]]:
        for name in await self.tenants() if tenant is None else [tenant]:
            cursor: int | None = None
            while cursor != 0:
                cursor, found, poisoned = await self._scans.call(_page(name, cursor or 0))
                if poisoned and discard_poisoned:
                    await self._drop(name, [(key, "") for key in poisoned])
                if found:
                    yield found

    async def sizes(self) -> Sequence[CacheSize]:
        async def read(client: Client) -> list[CacheSize]:
            found = []
            for name in await _tenants(client):
                entries = await client.zcard(redis_names.cache_uses(name))
                found.append(CacheSize(name, entries, int(await client.get(redis_names.cache_bytes(name)) or 0)))
            return [size for size in found if size.entries]

        return await self._scans.call(read)

    async def position(self) -> str:
        found = await self._reads.call(lambda client: client.get(redis_names.CACHE_FEED_LAST))
        return "0" if found is None else str(int(found))

    async def changes(self, after: str, count: int, wait_s: float) -> Sequence[CacheChange]:
        wait_ms = max(1, int(1000 * min(wait_s, self._max_wait_s)))  # 0 would wait for ever

        async def read(client: Client) -> tuple[Any, Any]:
            found = await client.xread({redis_names.CACHE_FEED: f"{after}-0"}, count, wait_ms)
            return found, None if found else await client.get(redis_names.CACHE_FEED_LAST)

        found, last = await self._reads.call(read)
        rows = found[0][1] if found else []
        changes = [_change(position.decode().partition("-")[0], fields[b"c"]) for position, fields in rows]
        # Without an answer, Redis has lost the feed if its last number is not the reader's.
        first = int(changes[0].position) if changes else int(last or 0) + 1
        if first != int(after) + 1:
            raise FeedGapError(f"the changes after {after} are gone")
        return changes

    async def _drop(self, tenant: str, which: Sequence[tuple[str, str]], *, begins_epoch: bool = False) -> list[str]:
        """Deletes entries by key and id, or by key alone where the id is "". Returns the keys of those there were."""
        drop = self._calls("drop", tenant, int(begins_epoch), *(part for pair in which for part in pair))

        async def run(client: Client) -> list[str]:
            dropped, removed = await drop(client)
            await self._tell(client, _deletions(tenant, removed))
            return [key.decode() for key in dropped]

        return await self._writes.call(run)

    async def _tell(self, client: Client, changes: Sequence[str]) -> None:
        """Adds ``changes``, JSON each, to the feed."""
        if changes:
            keys = [redis_names.CACHE_FEED, redis_names.CACHE_FEED_LAST]
            await self._feed_script.run(client, keys, [self._max_changes, *changes])

    async def _know(self, client: Client, tenant: str) -> None:
        """Adds ``tenant`` to the set of tenants with entries, from time to time."""
        now = self._clock.monotonic()
        if now - self._known_tenants.get(tenant, -KNOWN_S) >= KNOWN_S:
            await client.execute_command("SADD", redis_names.CACHE_TENANTS, tenant)
            self._known_tenants[tenant] = now

    def _calls(self, operation: str, tenant: str, *arguments: str | int | bytes) -> Callable[[Client], Awaitable[Any]]:
        """Returns a function that runs the script with a client, and returns the script's answer."""
        now = "" if self._script_clock is None else int(self._script_clock.now() * 1000)
        sent: list[Any] = [operation, redis_names.base(tenant), now, *arguments]
        return lambda client: self._script.run(client, [redis_names.cache_uses(tenant)], sent)


async def _tenants(client: Client) -> list[str]:
    """Returns the tenants that may have entries, sorted."""
    return sorted(name.decode() for name in await client.smembers(redis_names.CACHE_TENANTS))


def _page(tenant: str, cursor: int) -> Callable[[Client], Awaitable[tuple[int, list[CacheEntry], list[str]]]]:
    """Returns a function that reads the entries after ``cursor``. It returns the next cursor, which is 0 at the end,
    the entries, and the keys of those that cannot be read."""

    async def read(client: Client) -> tuple[int, list[CacheEntry], list[str]]:
        following, rows = await client.zscan(redis_names.cache_uses(tenant), cursor, count=BATCH)
        keys = [row[0].decode() for row in rows]
        found = await client.mget([redis_names.cache_entry(tenant, key) for key in keys]) if keys else []
        stored = {key: data for key, data in zip(keys, found, strict=True) if data is not None}
        read = {key: _readable(data, tenant, key) for key, data in stored.items()}
        entries = [entry for entry in read.values() if entry is not None]
        return int(following), entries, [key for key, entry in read.items() if entry is None]

    return read


def _text(epoch: int | None) -> str:
    return "" if epoch is None else str(epoch)


def _readable(data: bytes, tenant: str, key: str) -> CacheEntry | None:
    try:
        return decode_entry(data, tenant, key)
    except PoisonedEntryError:
        return None


def _put_change(entry: CacheEntry) -> str:
    names = [ChangeKind.PUT.value, entry.tenant, entry.id, entry.partition, entry.question]
    return json.dumps([*names, entry.created_ms, entry.expires_ms])


def _deletions(tenant: str, removed: Sequence[bytes]) -> list[str]:
    """Returns the changes for what the script has removed: an id, a space and the partition each."""
    names = (row.decode().partition(" ") for row in removed)
    return [json.dumps([ChangeKind.DELETE.value, tenant, entry_id, partition]) for entry_id, _, partition in names]


def _change(position: str, document: bytes) -> CacheChange:
    kind, *members = json.loads(document)
    return CacheChange(position, ChangeKind(kind), *members)
