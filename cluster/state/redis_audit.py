"""``RedisAudit``: the audit log in Redis. Implements the router's port ``AuditStore``.

Redis computes no SHA-256 in scripts. So a router computes the hashes of a batch from the head of the chain that it
knows, and the script adds the batch if that is still the head. Otherwise the router tries again from the present head
after a random pause. Of several routers, one always succeeds.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cluster.state import redis_names
from cluster.state.disk_journal import DiskJournal
from cluster.state.guarded_connections import GuardedConnections
from cluster.state.lua_script import LuaScript
from cluster.state.recently_added_tenants import RecentlyAddedTenants
from cluster.state.redis_client import Client
from cluster.state.redis_reviews import tenants
from cluster.state.write_behind import WriteBehind
from router.bounded_gather import bounded_gather, results_of
from router.ports.audit_store import AuditDay, AuditEntry, AuditHealth
from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError
from router.review.audit_chain import GENESIS, extended

MAX_BATCH = 256  # records that one call adds
MAX_TRIES = 32  # to add a batch; each that fails is one that another router has added
MAX_PAUSE_S = 0.1  # before a further try; drawn, so that no router is the slowest each time
MAX_TENANTS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The head of a tenant's chain: the day, number and hash of its last record."""

    day: int = 0
    records: int = 0
    hash: str = GENESIS

    @property
    def text(self) -> str:
        """The head in the form that the script compares."""
        return f"{self.day} {self.records} {self.hash}"


class RedisAudit:
    """The audit log. ``channel`` makes its calls. Records wait in ``journal``. ``kept_ms`` is the retention of a day's
    records, in milliseconds. ``script_clock`` replaces the Redis server's time in tests. ``on_lost`` is called for each
    record that is lost.

    Raises OSError if the journal cannot be used. The journal holds at most ``max_bytes`` bytes.
    """

    def __init__(
        self,
        channel: GuardedConnections,
        journal: Path,
        max_bytes: int,
        kept_ms: int,
        clock: Clock,
        script_clock: Clock | None = None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._channel = channel
        self._kept_ms = kept_ms
        self._script_clock = script_clock
        self._script = LuaScript("audit")
        self._heads: defaultdict[str, ChainHead] = defaultdict(ChainHead)  # by tenant, as this router knows them
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # calls here do not race each other
        self._known_tenants = RecentlyAddedTenants(clock)  # in the set of tenants
        self._writer = WriteBehind(
            "the audit log", DiskJournal(journal, max_bytes), encode, decode, self.append, on_lost
        )

    def start(self) -> None:
        """Starts the background task that writes the records in the journal."""
        self._writer.start()

    def health(self) -> AuditHealth:
        return AuditHealth(self._writer.waiting_bytes, self._writer.lost)

    async def close(self, timeout_s: float) -> None:
        """Waits for at most ``timeout_s`` seconds until all records are written, then stops the background task and
        closes the journal. Records that are not written stay there, for the next process."""
        await self._writer.close(timeout_s)

    def record(self, entry: AuditEntry) -> None:
        self._writer.record(entry)

    async def append(self, entries: Sequence[AuditEntry]) -> int:
        by_tenant: defaultdict[str, dict[str, AuditEntry]] = defaultdict(dict)
        for entry in entries:
            by_tenant[entry.tenant].setdefault(entry.id, entry)
        calls = [partial(self._append, tenant, list(rows.values())) for tenant, rows in by_tenant.items()]
        return sum(results_of(await bounded_gather(calls, MAX_TENANTS_AT_ONCE)))

    async def _append(self, tenant: str, entries: list[AuditEntry]) -> int:
        """Adds entries of one tenant, batch by batch. Returns the number of those that were new."""
        batches = [entries[place : place + MAX_BATCH] for place in range(0, len(entries), MAX_BATCH)]
        async with self._turns[tenant]:
            return sum([await self._append_batch(tenant, batch) for batch in batches])

    async def _append_batch(self, tenant: str, entries: list[AuditEntry]) -> int:
        for tried in range(MAX_TRIES):
            if not entries:
                return 0
            if tried:
                await asyncio.sleep(random.uniform(0, min(0.001 * 2**tried, MAX_PAUSE_S)))
            head = self._heads[tenant]
            lines = extended(head.hash, head.records, entries)
            added, known = await self._try(tenant, head, entries, lines)
            if added:
                return len(entries)
            entries = [entry for entry in entries if entry.id not in known]
        raise StateUnavailableError(f"other routers were faster {MAX_TRIES} times")

    async def _try(
        self, tenant: str, head: ChainHead, entries: Sequence[AuditEntry], lines: Sequence[str]
    ) -> tuple[bool, frozenset[str]]:
        """Adds ``lines`` if ``head`` is the head still. Returns whether it was, and which entries were there before.

        Afterwards this router knows the present head.
        """
        now = "" if self._script_clock is None else int(self._script_clock.now() * 1000)
        arguments: list[str | int] = [
            redis_names.base(tenant),
            now,
            self._kept_ms,
            redis_names.AUDIT_IDS_KEPT_MS,
        ]
        pairs = [part for entry, line in zip(entries, lines, strict=True) for part in (entry.id, line)]

        async def add(client: Client) -> list[bytes]:
            if tenant not in self._known_tenants:
                await client.sadd(redis_names.SAFETY_TENANTS, tenant)
                self._known_tenants.add(tenant)
            keys = [redis_names.audit_heads(tenant)]
            answer: list[bytes] = await self._script.run(client, keys, [*arguments, head.text, *pairs])
            return answer

        added, present, _, *known = await self._channel.call(add)
        day, records, last = present.decode().split()
        self._heads[tenant] = ChainHead(int(day), int(records), last)
        return bool(added), frozenset(each.decode() for each in known)

    async def days(self, tenant: str | None = None) -> Sequence[AuditDay]:
        names = [tenant] if tenant is not None else await self._channel.call(tenants)
        calls = [partial(self._channel.call, partial(_days, name)) for name in names]
        return [day for days in results_of(await bounded_gather(calls, MAX_TENANTS_AT_ONCE)) for day in days]

    async def lines(self, tenant: str, day: int, first: int, count: int) -> Sequence[str]:
        name = redis_names.audit_lines(tenant, day)
        found = await self._channel.call(lambda client: client.lrange(name, first, first + count - 1))
        return [line.decode("utf-8", "replace") for line in found]


async def _days(tenant: str, client: Client) -> list[AuditDay]:
    """Returns the days of ``tenant``, sorted. Heads are read before the lists, which only grow: a list that is shorter
    than its head has lost records."""
    heads = await client.hgetall(redis_names.audit_heads(tenant))
    days = sorted(int(name) for name in heads if name != b"last")
    pipeline = client.pipeline(transaction=False)
    for day in days:
        pipeline.llen(redis_names.audit_lines(tenant, day))
    lengths = await pipeline.execute() if days else []
    found = []
    for day, stored in zip(days, lengths, strict=True):
        opening, records, head = heads[b"%d" % day].decode().split()
        found.append(AuditDay(tenant, day, opening, int(records), head, stored))
    return found


def encode(entry: AuditEntry) -> bytes:
    """Returns ``entry`` as a line of JSON for the journal."""
    return json.dumps([entry.id, entry.tenant, entry.document], separators=(",", ":")).encode()


def decode(line: bytes) -> AuditEntry:
    """Returns the entry in a line of ``encode``. Raises ValueError or TypeError for a damaged line."""
    item_id, tenant, document = json.loads(line)
    return AuditEntry(item_id, tenant, document)
