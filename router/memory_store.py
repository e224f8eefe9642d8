"""``MemoryStore``: the shared state in the memory of one process, for a single router without Redis and for tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from router.limits.reservations import LimitState, expire, limit_uses, renew, reserve, settle
from router.ports.clock import Clock
from router.ports.key_store import KeyRecord
from router.ports.ledger_store import LedgerEntry, LedgerQuery, LedgerSum, summed
from router.ports.limit_store import Charge, LimitDecision, LimitUse, Renewal, Reservation, Scope
from router.ports.state_store import StateUnavailableError


class MemoryStore:
    """Implements ``StateStore``. It keeps every ledger entry for as long as it lives.

    Methods do not wait, so each is atomic among the tasks of one event loop.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._closed = False
        self._keys: dict[str, KeyRecord] = {}
        self._limits: defaultdict[str, LimitState] = defaultdict(LimitState)  # by tenant
        self._entries: dict[tuple[str, str], LedgerEntry] = {}  # by tenant and id

    async def start(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True

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

    async def limit_uses(self, tenant: str, scopes: Sequence[Scope]) -> Sequence[LimitUse]:
        self._check_open()
        return limit_uses(self._limits[tenant], scopes, self._now_ms())

    async def open_reservations(self, tenant: str) -> int:
        self._check_open()
        self._limits[tenant] = expire(self._limits[tenant], self._now_ms())
        return sum(held.leased for held in self._limits[tenant].held.values())

    def record(self, entry: LedgerEntry) -> None:
        self._entries.setdefault((entry.tenant, entry.id), entry)

    async def append(self, entries: Sequence[LedgerEntry]) -> int:
        self._check_open()
        new = {(entry.tenant, entry.id): entry for entry in entries if (entry.tenant, entry.id) not in self._entries}
        self._entries |= new
        return len(new)

    async def sums(self, query: LedgerQuery) -> Sequence[LedgerSum]:
        self._check_open()
        length = query.resolution.ms
        rows = [
            (entry.at_ms // length * length, {**entry.labels, "tenant": entry.tenant}, entry.amounts)
            for entry in self._entries.values()
            if query.tenant in (None, entry.tenant)
        ]
        return summed(query, rows)

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
