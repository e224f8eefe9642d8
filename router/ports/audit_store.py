"""``AuditStore``: the port to the audit log. Its records are chained by hashes, for each tenant and day (UTC).

A record is canonical JSON; a line is its hash, a space and the record. Its hash is that of the line before it and of
the record (``router.review.audit_chain``). The first line of a day follows the last line of the tenant's day before, so
that the removal of a whole day is detected.
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

    ``day`` counts days since the epoch. ``opening`` is the hash that the first record follows. ``records`` is the
    number of records and ``head`` the hash of the last one. ``stored`` is the number of lines that are still kept.
    """

    tenant: str
    day: int
    opening: str
    records: int
    head: str
    stored: int


@dataclass(frozen=True, slots=True)
class AuditHealth:
    """The state of this process' delivery to the audit log. ``journal_bytes`` of records wait on disk. ``lost_records``
    is the number of records that could not be kept there."""

    journal_bytes: int = 0
    lost_records: int = 0


class AuditStore(Protocol):
    """The audit log. Each coroutine raises StateUnavailableError if the store cannot be reached in time."""

    def record(self, entry: AuditEntry) -> None:
        """Adds ``entry`` soon, once, and returns at once. It is for code that a request waits for.

        An entry waits on disk while the store cannot be reached, and survives the end of this process there.
        """
        ...

    def health(self) -> AuditHealth:
        """Returns the state of this process' delivery to the log, without a call to the store."""
        ...

    async def append(self, entries: Sequence[AuditEntry]) -> int:
        """Adds those of ``entries`` that were not added before to the current day by the store's clock.

        Returns their number. If it raises, each may or may not have been added. It is safe to append all of them again.
        """
        ...

    async def days(self, tenant: str | None = None) -> Sequence[AuditDay]:
        """Returns the days with records of ``tenant``, or of all tenants, sorted by tenant and day."""
        ...

    async def lines(self, tenant: str, day: int, first: int, count: int) -> Sequence[str]:
        """Returns at most ``count`` lines of a day, from the index ``first`` on, which counts from 0."""
        ...
