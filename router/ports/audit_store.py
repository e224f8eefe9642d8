"""``AuditStore``: the port to the audit log. Its records are chained by hashes, for each tenant and day (UTC).

A record is canonical JSON; a line is its hash, a space and the record. Its hash is that of the line before it and of
the record (``router.review.audit_chain``). The first line of a day follows the last line of the tenant's day before, so
that a day that is removed as a whole is missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A record to be added. ``id`` is unique: an entry is added once, however often it is appended. ``document`` is a
    JSON object; the store adds ``id`` and the number of the record."""

    id: str
    tenant: str
    document: str


@dataclass(frozen=True, slots=True)
class AuditDay:
    """The head of the chain of a tenant's day, which is kept apart from its records, and for longer.

    ``day`` counts days since the epoch. ``opening`` is the hash that the first record follows. ``records`` is their
    number and ``head`` the hash of the last. ``stored`` is the number of lines that are there.
    """

    tenant: str
    day: int
    opening: str
    records: int
    head: str
    stored: int


@dataclass(frozen=True, slots=True)
class AuditHealth:
    """How this process' records reach the audit log: ``journal_bytes`` of them wait on disk, ``lost_records`` could not
    be kept there."""

    journal_bytes: int = 0
    lost_records: int = 0


class AuditStore(Protocol):
    """The audit log. Each coroutine raises StateUnavailableError if the store cannot be reached in time."""

    def record(self, entry: AuditEntry) -> None:
        """Adds ``entry`` soon, once, and returns at once. For the way of a request.

        An entry waits on disk while the store cannot be reached, and survives the end of this process there.
        """
        ...

    def health(self) -> AuditHealth:
        """Returns how records reach the log, without a call to the store."""
        ...

    async def append(self, entries: Sequence[AuditEntry]) -> int:
        """Adds those of ``entries`` that were not added before to the day that it is by the store's clock.

        Returns their number. If it raises, each may or may not be added; appending all again is right.
        """
        ...

    async def days(self, tenant: str | None = None) -> Sequence[AuditDay]:
        """Returns the days with records of ``tenant``, or of all tenants, sorted by tenant and day."""
        ...

    async def lines(self, tenant: str, day: int, first: int, count: int) -> Sequence[str]:
        """Returns at most ``count`` lines of a day, from the one at the place ``first``, which counts from 0."""
        ...
