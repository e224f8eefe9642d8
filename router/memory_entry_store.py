"""``MemoryEntryStore``: stored answers in the memory of one process, for one router without Redis and for tests."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from router.ports.answer_cache import (
    AWAITED_MS,
    CacheBounds,
    CacheChange,
    CacheSize,
    ChangeKind,
    FeedGapError,
    Lease,
)
from router.ports.cache_entry import CacheEntry, PoisonedEntryError, decode_entry, encode_entry
from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError

MAX_CHANGES = 100_000
"""Changes that the feed keeps."""
BATCH = 200


@dataclass(slots=True)
class _Kept:
    """An entry as it is written, and what the store knows of it. ``announced``: the feed has it."""

    data: bytes
    id: str
    partition: str
    announced: bool
    expires_ms: int


@dataclass(slots=True)
class _Held:
    """A lease; ``owner`` None: no router leads until ``expires_ms``. Another owner waits until ``awaited_ms``."""

    owner: str | None
    expires_ms: int
    awaited_ms: int = 0


@dataclass(slots=True)
class _Tenant:
    """The entries of a tenant, by key, the least recently used first."""

    entries: OrderedDict[str, _Kept] = field(default_factory=OrderedDict)
    leases: dict[str, _Held] = field(default_factory=dict)
    due: list[tuple[int, str]] = field(default_factory=list)  # a heap of expiry and key, also of entries that are gone
    bytes: int = 0
    epoch: int = 0

    def begin_epoch(self) -> None:
        """Ends all leases, which are of the former epoch."""
        self.epoch += 1
        self.leases.clear()


class MemoryEntryStore:
    """Implements ``EntryStore`` and ``EntryFeed``. Methods do not wait, so each is atomic among the tasks of one event
    loop. The feed keeps the last ``max_changes`` changes."""

    def __init__(self, clock: Clock, max_changes: int = MAX_CHANGES) -> None:
        self._clock = clock
        self._closed = False
        self._tenants: defaultdict[str, _Tenant] = defaultdict(_Tenant)
        self._changes: deque[CacheChange] = deque(maxlen=max_changes)
        self._last = 0  # the number of the last change
        self._changed = asyncio.Event()

    async def start(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True

    async def get(self, tenant: str, key: str) -> CacheEntry | None:
        self._check_open()
        return self._find(tenant, key)

    async def find_or_lead(self, tenant: str, key: str, owner: str, lease_ms: int) -> CacheEntry | Lease:
        self._check_open()
        if (entry := self._find(tenant, key)) is not None:
            return entry
        leases, epoch, now = self._tenants[tenant].leases, self._tenants[tenant].epoch, self._now_ms()
        held = leases.get(key)
        if held is None or held.expires_ms <= now or held.owner == owner:
            leases[key] = _Held(owner, now + lease_ms)
            return Lease(leading=True, left_ms=lease_ms, epoch=epoch)
        held.awaited_ms = now + AWAITED_MS
        return Lease(unshared=held.owner is None, left_ms=held.expires_ms - now, epoch=epoch)

    async def awaited(self, tenant: str, key: str, owner: str) -> bool:
        self._check_open()
        held, now = self._tenants[tenant].leases.get(key), self._now_ms()
        return held is not None and held.owner == owner and held.expires_ms > now and held.awaited_ms > now

    async def epoch(self, tenant: str) -> int:
        self._check_open()
        return self._tenants[tenant].epoch

    async def renew(self, tenant: str, key: str, owner: str, lease_ms: int) -> bool:
        self._check_open()
        held, now = self._tenants[tenant].leases.get(key), self._now_ms()
        if held is None or held.owner != owner or held.expires_ms <= now:
            return False
        held.expires_ms = now + lease_ms
        return True

    async def release(self, tenant: str, key: str, owner: str, unshared_ms: int = 0) -> None:
        self._check_open()
        leases = self._tenants[tenant].leases
        held = leases.get(key)
        if held is None or held.owner != owner:
            return
        del leases[key]
        if unshared_ms > 0:
            leases[key] = _Held(None, self._now_ms() + unshared_ms)

    async def put(self, entry: CacheEntry, bounds: CacheBounds, owner: str = "", epoch: int | None = None) -> bool:
        self._check_open()
        data, now = encode_entry(entry), self._now_ms()
        if epoch not in (None, self._tenants[entry.tenant].epoch):
            return False
        if entry.expires_ms <= entry.created_ms or len(data) > bounds.max_bytes:
            return False
        tenant = self._tenants[entry.tenant]
        self._drop_expired(entry.tenant)
        self._drop(entry.tenant, entry.key)
        length_ms = entry.expires_ms - entry.created_ms
        tenant.entries[entry.key] = _Kept(data, entry.id, entry.partition, entry.semantic, now + length_ms)
        tenant.bytes += len(data)
        heappush(tenant.due, (now + length_ms, entry.key))
        if entry.semantic:
            self._announce(ChangeKind.PUT, entry)
        if len(tenant.due) > 2 * len(tenant.entries) + BATCH:  # replaced and evicted entries leave theirs behind
            tenant.due = [(each.expires_ms, key) for key, each in tenant.entries.items()]
            heapify(tenant.due)
        while len(tenant.entries) > bounds.max_entries or tenant.bytes > bounds.max_bytes:
            self._drop(entry.tenant, next(iter(tenant.entries)))
        if owner and (held := tenant.leases.get(entry.key)) is not None and held.owner == owner:
            del tenant.leases[entry.key]
        return True

    async def discard(self, tenant: str, key: str) -> bool:
        self._check_open()
        return self._drop(tenant, key)

    async def delete(self, tenant: str, entry_id: str) -> bool:
        self._check_open()
        key = entry_id.partition("-")[0]
        kept = self._tenants[tenant].entries.get(key)
        return kept is not None and kept.id == entry_id and self._drop(tenant, key)

    async def delete_many(self, tenant: str, entry_ids: Sequence[str]) -> Sequence[str]:
        self._tenants[tenant].begin_epoch()
        return [each for each in entry_ids if await self.delete(tenant, each)]

    async def clear(self, tenant: str) -> int:
        self._check_open()
        cleared, count = self._tenants[tenant], len(self._tenants[tenant].entries)
        cleared.begin_epoch()
        cleared.entries.clear()
        cleared.due.clear()
        cleared.bytes = 0
        self._last += 1
        self._changes.append(CacheChange(str(self._last), ChangeKind.CLEAR, tenant, "", ""))
        self._changed.set()
        return count

    async def tenants(self) -> Sequence[str]:
        self._check_open()
        return sorted(self._tenants)

    async def entries(
        self, tenant: str | None = None, *, discard_poisoned: bool = False
    ) -> AsyncIterator[Sequence[CacheEntry]]:
        self._check_open()
        for name in sorted(self._tenants) if tenant is None else [tenant]:
            self._drop_expired(name)
            kept = list(self._tenants[name].entries.items())
            for start in range(0, len(kept), BATCH):
                found = {key: _readable(each.data, name, key) for key, each in kept[start : start + BATCH]}
                for key in [key for key, entry in found.items() if entry is None and discard_poisoned]:
                    self._drop(name, key)
                yield [entry for entry in found.values() if entry is not None]
                self._check_open()

    async def sizes(self) -> Sequence[CacheSize]:
        self._check_open()
        return [
            CacheSize(name, len(tenant.entries), tenant.bytes)
            for name, tenant in sorted(self._tenants.items())
            if tenant.entries
        ]

    async def position(self) -> str:
        self._check_open()
        return str(self._last)

    async def changes(self, after: str, count: int, wait_s: float) -> Sequence[CacheChange]:
        self._check_open()
        place = int(after)
        if place == self._last:
            self._changed.clear()
            await asyncio.wait([waiting := asyncio.ensure_future(self._changed.wait())], timeout=wait_s)
            waiting.cancel()
        first = int(self._changes[0].position) if self._changes else self._last + 1
        if place > self._last or place + 1 < first:
            raise FeedGapError(f"the changes after {after} are gone")
        return [change for change in self._changes if int(change.position) > place][:count]

    def _find(self, tenant: str, key: str) -> CacheEntry | None:
        entries = self._tenants[tenant].entries
        if (kept := entries.get(key)) is None:
            return None
        if kept.expires_ms <= self._now_ms():
            self._drop(tenant, key)
            return None
        entries.move_to_end(key)
        return decode_entry(kept.data, tenant, key)

    def _drop(self, tenant: str, key: str) -> bool:
        kept = self._tenants[tenant].entries.pop(key, None)
        if kept is None:
            return False
        self._tenants[tenant].bytes -= len(kept.data)
        if kept.announced:
            self._last += 1
            change = CacheChange(str(self._last), ChangeKind.DELETE, tenant, kept.id, kept.partition)
            self._changes.append(change)
            self._changed.set()
        return True

    def _drop_expired(self, tenant: str) -> None:
        now, kept = self._now_ms(), self._tenants[tenant]
        while kept.due and kept.due[0][0] <= now:
            _, key = heappop(kept.due)
            if (entry := kept.entries.get(key)) is not None and entry.expires_ms <= now:
                self._drop(tenant, key)
        kept.leases = {key: held for key, held in kept.leases.items() if held.expires_ms > now}

    def _announce(self, kind: ChangeKind, entry: CacheEntry) -> None:
        self._last += 1
        times = entry.created_ms, entry.expires_ms
        names = entry.tenant, entry.id, entry.partition
        self._changes.append(CacheChange(str(self._last), kind, *names, entry.question, *times))
        self._changed.set()

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)

    def _check_open(self) -> None:
        if self._closed:
            raise StateUnavailableError("the store is closed", sent=False)


def _readable(data: bytes, tenant: str, key: str) -> CacheEntry | None:
    try:
        return decode_entry(data, tenant, key)
    except PoisonedEntryError:
        return None
