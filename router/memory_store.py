"""``MemoryStore``: the shared state in the memory of one process, for a single router without Redis and for tests."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from router.limits.limit_transitions import LimitState, count, expire, limit_uses, renew, reserve, settle
from router.ports.clock import Clock
from router.ports.key_store import KeyRecord
from router.ports.ledger_store import (
    CAPPED_LABEL,
    MAX_VALUES,
    OTHER,
    REQUESTS,
    LedgerEntry,
    LedgerQuery,
    LedgerSum,
    Resolution,
    summed,
)
from router.ports.limit_store import Charge, LimitDecision, LimitUse, Renewal, Reservation, Scope
from router.ports.state_store import StateHealth, StateUnavailableError

MAX_ENTRIES = 10_000
"""Ledger entries whose documents are kept, the newest. An entry has about 1,000 bytes."""

Labels = tuple[tuple[str, str], ...]


class MemoryStore:
    """Implements ``StateStore``. It keeps the documents of the last MAX_ENTRIES ledger entries, and sums for as long as
    ``Resolution.kept_ms`` says.

    Methods do not wait, so each is atomic among the tasks of one event loop.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._closed = False
        self._keys: dict[str, KeyRecord] = {}
        self._limits: defaultdict[str, LimitState] = defaultdict(LimitState)  # by tenant
        self._entries: OrderedDict[tuple[str, str], LedgerEntry] = OrderedDict()  # by tenant and id
        self._sums: dict[Resolution, defaultdict[int, defaultdict[Labels, Counter[str]]]] = {
            resolution: defaultdict(lambda: defaultdict(Counter)) for resolution in Resolution
        }  # by the start of the interval, then by labels with ``tenant`` among them
        self._parts: defaultdict[tuple[str, str], list[LedgerEntry]] = defaultdict(list)  # by tenant and whole entry
        self._values: defaultdict[tuple[str, int], set[str]] = defaultdict(set)  # of CAPPED_LABEL, by tenant and day

    async def start(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True

    def health(self) -> StateHealth:
        return StateHealth()

    async def put_key(self, record: KeyRecord) -> None:
        self._check_open()
        self._keys[record.id] = record

    async def replace_key(self, expected: KeyRecord, record: KeyRecord) -> bool:
        self._check_open()
        if self._keys.get(record.id) != expected:
            return False
        self._keys[record.id] = record
        return True

    async def key_by_digest(self, digest: str) -> KeyRecord | None:
        self._check_open()
        return next((record for record in self._keys.values() if record.digest == digest), None)

    async def key(self, key_id: str) -> KeyRecord | None:
        self._check_open()
        return self._keys.get(key_id)

    async def keys(self, tenant: str | None = None) -> Sequence[KeyRecord]:
        self._check_open()
        found = [record for record in self._keys.values() if tenant in (None, record.tenant)]
        return sorted(found, key=lambda record: (record.tenant, record.id))

    async def delete_key(self, key_id: str) -> bool:
        self._check_open()
        return self._keys.pop(key_id, None) is not None

    async def reserve(self, reservation: Reservation, lease_ms: int) -> LimitDecision:
        self._check_open()
        state = self._limits[reservation.tenant]
        self._limits[reservation.tenant], decision = reserve(state, reservation, lease_ms, self._now_ms())
        return decision

    async def renew(self, renewals: Sequence[Renewal], lease_ms: int) -> None:
        self._check_open()
        for renewal in renewals:
            state = self._limits[renewal.tenant]
            self._limits[renewal.tenant] = renew(state, [renewal], lease_ms, self._now_ms())

    async def settle(self, tenant: str, reservation_id: str, used: Charge) -> bool:
        self._check_open()
        self._limits[tenant], known = settle(self._limits[tenant], reservation_id, used, self._now_ms())
        return known

    async def count(self, reservation: Reservation) -> None:
        self._check_open()
        self._limits[reservation.tenant] = count(self._limits[reservation.tenant], reservation, self._now_ms())

    async def limit_uses(self, tenant: str, scopes: Sequence[Scope]) -> Sequence[LimitUse]:
        self._check_open()
        return limit_uses(self._limits[tenant], scopes, self._now_ms())

    async def open_reservations(self, tenant: str) -> int:
        self._check_open()
        self._limits[tenant] = expire(self._limits[tenant], self._now_ms())
        return sum(held.leased for held in self._limits[tenant].held.values())

    def record(self, entry: LedgerEntry) -> None:
        self._add(entry)

    async def append(self, entries: Sequence[LedgerEntry]) -> int:
        self._check_open()
        return sum([self._add(entry) for entry in entries])

    async def sums(self, query: LedgerQuery) -> Sequence[LedgerSum]:
        self._check_open()
        return summed(query, self._rows(query))

    def _add(self, entry: LedgerEntry) -> bool:
        """Adds an entry. Returns whether it is new."""
        key = (entry.tenant, entry.id)
        if key in self._entries or (entry.part_of and (entry.tenant, entry.part_of) in self._entries):
            return False
        if entry.part_of:
            parts = self._parts[entry.tenant, entry.part_of]
            if parts and REQUESTS in entry.amounts:
                entry = replace(entry, amounts={**entry.amounts, REQUESTS: 0})
            parts.append(entry)
            if len(self._parts) > MAX_ENTRIES:
                del self._parts[next(iter(self._parts))]
        for part in self._parts.pop(key, ()):
            self._sum(part, -1)
        self._entries[key] = entry
        if len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)
        self._sum(entry, 1)
        return True

    def _sum(self, entry: LedgerEntry, sign: int) -> None:
        """Adds the amounts of an entry, times ``sign``, to the sums."""
        labels = tuple(sorted({**self._summed_labels(entry), "tenant": entry.tenant}.items()))
        amounts = {name: sign * amount for name, amount in entry.amounts.items()}
        for resolution, intervals in self._sums.items():
            start = entry.at_ms // resolution.ms * resolution.ms
            if start not in intervals:
                _forget(intervals, self._now_ms() - resolution.kept_ms)
            intervals[start][labels].update(amounts)

    def _summed_labels(self, entry: LedgerEntry) -> Mapping[str, str]:
        """Returns the labels under which an entry is summed, with OTHER for a value beyond MAX_VALUES."""
        day = entry.at_ms // Resolution.DAY.ms
        value = entry.labels.get(CAPPED_LABEL, "")
        if (entry.tenant, day) not in self._values:
            for key in [(name, at) for name, at in self._values if at < day - 1]:
                del self._values[key]
        values = self._values[entry.tenant, day]
        if value and value not in values:
            if len(values) >= MAX_VALUES:
                return {**entry.labels, CAPPED_LABEL: OTHER}
            values.add(value)
        return entry.labels

    def _rows(self, query: LedgerQuery) -> Iterator[tuple[int, Mapping[str, str], Mapping[str, int]]]:
        """Yields the sums of the resolution and the tenant of ``query``."""
        for start, sums in self._sums[query.resolution].items():
            for labels, amounts in sums.items():
                if query.tenant is None or ("tenant", query.tenant) in labels:
                    yield start, dict(labels), amounts

    async def entry(self, tenant: str, entry_id: str) -> str | None:
        self._check_open()
        found = self._entries.get((tenant, entry_id))
        return None if found is None else found.document

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)

    def _check_open(self) -> None:
        """Raises StateUnavailableError after ``close``."""
        if self._closed:
            raise StateUnavailableError("the store is closed")


def _forget(intervals: dict[int, Any], first_ms: int) -> None:
    """Removes the intervals that begin before ``first_ms``."""
    for start in [start for start in intervals if start < first_ms]:
        del intervals[start]
