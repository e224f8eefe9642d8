"""``MemorySafetyStore``: the shared state of safety in the memory of one process, for a single router and for tests."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from router.ports.audit_store import AuditDay, AuditEntry, AuditHealth
from router.ports.clock import Clock
from router.ports.review_store import (
    NewReviewItem,
    ReviewAction,
    ReviewException,
    ReviewItem,
    ReviewQueueFullError,
    ReviewState,
    ReviewStep,
)
from router.ports.state_store import StateUnavailableError
from router.review.audit_chain import GENESIS, HASH_LENGTH, extended
from router.review.review_transitions import at, taken

logger = logging.getLogger(__name__)

DAY_MS = 86_400_000
MAX_RECORDS = 100_000  # of the audit log, about 50 MB


@dataclass(slots=True)
class Stored:
    """A review item in its present state, and the submission that it was made of, which has its text and retention."""

    item: ReviewItem
    new: NewReviewItem


@dataclass(slots=True)
class Chain:
    """The audit log of one tenant: the lines of each day, the hash that precedes each day's first line, and the ids of
    all records."""

    openings: dict[int, str] = field(default_factory=dict)
    lines: dict[int, list[str]] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)


class MemorySafetyStore:
    """Implements ``SafetyStore``."""

    def __init__(self, clock: Clock) -> None:
        self._closed = False
        self._secret: bytes | None = None
        self._policies: dict[str, str] = {}  # by tenant
        self.reviews = MemoryReviews(clock, self._check_open)
        self.audit = MemoryAudit(clock, self._check_open)

    async def start(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True

    async def policy(self, tenant: str) -> str | None:
        self._check_open()
        return self._policies.get(tenant)

    async def put_policy(self, tenant: str, document: str) -> None:
        self._check_open()
        self._policies[tenant] = document

    async def delete_policy(self, tenant: str) -> bool:
        self._check_open()
        return self._policies.pop(tenant, None) is not None

    async def policy_tenants(self) -> Sequence[str]:
        self._check_open()
        return sorted(self._policies)

    async def secret(self, proposed: bytes) -> bytes:
        self._check_open()
        self._secret = self._secret or proposed
        return self._secret

    def _check_open(self) -> None:
        """Raises StateUnavailableError after ``close``."""
        if self._closed:
            raise StateUnavailableError("the store is closed")


class MemoryReviews:
    """Implements ``ReviewStore``. ``check_open`` raises StateUnavailableError if the store is closed.

    Methods do not wait, so each is atomic among the tasks of one event loop.
    """

    def __init__(self, clock: Clock, check_open: Callable[[], None]) -> None:
        self._clock = clock
        self._check_open = check_open
        self._items: dict[str, Stored] = {}  # by id, the oldest first
        self._exceptions: dict[tuple[str, str], ReviewException] = {}  # by tenant and fingerprint

    async def submit(self, item: NewReviewItem, max_open: int) -> str:
        waiting = [stored for stored in self._current(item.tenant) if stored.item.state.open]
        for stored in waiting:
            if stored.item.fingerprint == item.fingerprint:
                if stored.item.id != item.id:  # otherwise the call was repeated
                    stored.item = replace(stored.item, times=stored.item.times + 1)
                return stored.item.id
        if len(waiting) >= max_open:
            raise ReviewQueueFullError(f"{max_open} items wait already")
        now_ms = self._now_ms()
        made = ReviewItem(
            item.id, item.tenant, item.fingerprint, item.document, now_ms, expires_ms=now_ms + item.expires_in_ms
        )
        self._items[item.id] = Stored(made, item)
        return item.id

    async def item(self, item_id: str, tenant: str | None = None) -> ReviewItem | None:
        stored = next((each for each in self._current(tenant) if each.item.id == item_id), None)
        return None if stored is None else stored.item

    async def text(self, tenant: str, item_id: str) -> bytes | None:
        stored = next((each for each in self._current(tenant) if each.item.id == item_id), None)
        if stored is None or stored.item.state is ReviewState.EXPIRED:
            return None
        return stored.new.text if stored.item.state.open or stored.new.keep_text else None

    async def items(self, tenant: str | None, state: ReviewState | None, limit: int) -> Sequence[ReviewItem]:
        items = [stored.item for stored in self._current(tenant)]
        if state is None or state.open:
            chosen = [each for each in items if (each.state is state if state else each.state.open)]
            return sorted(chosen, key=lambda each: (each.created_ms, each.id))[:limit]
        done = [each for each in items if each.state is state]
        return sorted(done, key=lambda each: (each.decided_ms, each.id), reverse=True)[:limit]

    async def decided(self, tenant: str | None, since_ms: int, limit: int) -> Sequence[ReviewItem]:
        final = (ReviewState.APPROVED, ReviewState.REJECTED)
        items = [each.item for each in self._current(tenant) if each.item.state in final]
        chosen = [each for each in items if each.decided_ms >= since_ms]
        return sorted(chosen, key=lambda each: (each.decided_ms, each.id))[:limit]

    async def step(self, tenant: str, item_id: str, step: ReviewStep) -> tuple[ReviewItem | None, bool]:
        stored = next((each for each in self._current(tenant) if each.item.id == item_id), None)
        if stored is None:
            return None, False
        before, now_ms = stored.item, self._now_ms()
        stored.item, accepted = taken(before, step, now_ms)
        approved = accepted and before.state.open and step.action is ReviewAction.APPROVE
        if approved and step.exception_ms > 0:
            key, ends_ms = (tenant, before.fingerprint), now_ms + step.exception_ms
            self._exceptions[key] = ReviewException(*key, ends_ms, step.exception_document)
        return stored.item, accepted

    async def has_exception(self, tenant: str, fingerprint: str) -> bool:
        return (tenant, fingerprint) in self._live_exceptions()

    async def exceptions(self, tenant: str | None = None) -> Sequence[ReviewException]:
        return [each for key, each in sorted(self._live_exceptions().items()) if tenant in (None, key[0])]

    async def delete_exception(self, tenant: str, fingerprint: str) -> bool:
        return self._live_exceptions().pop((tenant, fingerprint), None) is not None

    def _live_exceptions(self) -> dict[tuple[str, str], ReviewException]:
        self._check_open()
        now_ms = self._now_ms()
        self._exceptions = {key: each for key, each in self._exceptions.items() if each.expires_ms > now_ms}
        return self._exceptions

    def _current(self, tenant: str | None) -> list[Stored]:
        """Returns the items of ``tenant``, or of all, as they are now. Deletes those that are kept no longer."""
        self._check_open()
        now_ms = self._now_ms()
        for stored in list(self._items.values()):
            stored.item = at(stored.item, now_ms)
            if not stored.item.state.open and now_ms >= stored.item.decided_ms + stored.new.kept_ms:
                del self._items[stored.item.id]
        return [stored for stored in self._items.values() if tenant in (None, stored.item.tenant)]

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


class MemoryAudit:
    """Implements ``AuditStore``. It keeps the first MAX_RECORDS records as long as the process runs; further ones are
    lost, counted and logged, since a chain that has lost its beginning cannot be verified. ``check_open`` raises
    StateUnavailableError if the store is closed."""

    def __init__(self, clock: Clock, check_open: Callable[[], None]) -> None:
        self._clock = clock
        self._check_open = check_open
        self._chains: defaultdict[str, Chain] = defaultdict(Chain)  # by tenant
        self._records = 0
        self._lost = 0

    def health(self) -> AuditHealth:
        return AuditHealth(lost_records=self._lost)

    def record(self, entry: AuditEntry) -> None:
        self._add([entry])

    async def append(self, entries: Sequence[AuditEntry]) -> int:
        self._check_open()
        return self._add(entries)

    def _add(self, entries: Iterable[AuditEntry]) -> int:
        added = 0
        for entry in entries:
            if self._records >= MAX_RECORDS:
                self._lose()
                continue
            chain = self._chains[entry.tenant]
            if entry.id in chain.ids:
                continue
            self._records += 1
            day = max([self._now_ms() // DAY_MS, *chain.lines])  # a clock that is set back begins no day again
            if day not in chain.lines:
                chain.openings[day] = _head(chain, max(chain.lines)) if chain.lines else GENESIS
                chain.lines[day] = []
            chain.lines[day] += extended(_head(chain, day), len(chain.lines[day]), [entry])
            chain.ids.add(entry.id)
            added += 1
        return added

    def _lose(self) -> None:
        if not self._lost:
            logger.error("the audit log in memory has %d records: further ones are lost", MAX_RECORDS)
        self._lost += 1

    async def days(self, tenant: str | None = None) -> Sequence[AuditDay]:
        self._check_open()
        return [
            AuditDay(name, day, chain.openings[day], len(lines), _head(chain, day), len(lines))
            for name, chain in sorted(self._chains.items())
            if tenant in (None, name)
            for day, lines in sorted(chain.lines.items())
        ]

    async def lines(self, tenant: str, day: int, first: int, count: int) -> Sequence[str]:
        self._check_open()
        return self._chains[tenant].lines.get(day, [])[first : first + count] if tenant in self._chains else []

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _head(chain: Chain, day: int) -> str:
    """Returns the hash that the next record of ``day`` follows."""
    lines = chain.lines[day]
    return lines[-1][:HASH_LENGTH] if lines else chain.openings[day]
