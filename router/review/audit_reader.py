"""``AuditReader``: reads and verifies the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.ports.audit_store import AuditDay, AuditStore
from router.review.audit_chain import ChainFault, ChainVerifier, opening_fault

PAGE = 1000  # lines of a call


@dataclass(frozen=True, slots=True)
class DayReport:
    """The result of verifying one tenant's day. ``retained``: its records are still kept; otherwise only the head is.
    ``fault`` is the first bad record; None: the chain is unchanged."""

    day: AuditDay
    retained: bool
    fault: ChainFault | None


class AuditReader:
    """Reads the log in ``store``. ``kept_days`` is the retention of records, in days. Each coroutine raises
    StateUnavailableError if the store does not answer."""

    def __init__(self, store: AuditStore, kept_days: int) -> None:
        self._store = store
        self._kept_days = kept_days

    async def read(self, tenant: str, day: int, first: int, count: int) -> Sequence[str]:
        """Returns at most ``count`` lines of a day, from the index ``first`` on, which counts from 0."""
        return await self._store.lines(tenant, day, first, count)

    async def tenants(self, day: int) -> Sequence[str]:
        """Returns the tenants with records of ``day``, sorted."""
        return [each.tenant for each in await self._store.days() if each.day == day]

    async def verify(self, tenant: str | None, day: int, today: int) -> Sequence[DayReport]:
        """Verifies the hash chain of ``day`` for ``tenant``, or for all tenants with records of that day. Returns a
        report for each. ``day`` and ``today``, by which expired records are recognised, are in days since the epoch."""
        days = await self._store.days(tenant)
        reports = []
        for name in sorted({each.tenant for each in days}):
            own = [each for each in days if each.tenant == name]
            for place, each in enumerate(own):
                if each.day == day:
                    fault = opening_fault(own, place)
                    reports.append(await self._report(each, fault, today))
        return reports

    async def _report(self, day: AuditDay, fault: ChainFault | None, today: int) -> DayReport:
        """Reads all records of a day. Without any, after the time that they are kept, only the head is there to see."""
        retained = day.stored > 0 or today - day.day < self._kept_days
        if fault is not None or not retained:
            return DayReport(day, retained, fault)
        verifier = ChainVerifier(day.opening)
        for first in range(0, day.stored, PAGE):
            verifier.push(await self._store.lines(day.tenant, day.day, first, min(PAGE, day.stored - first)))
        return DayReport(day, retained, verifier.end(day))
