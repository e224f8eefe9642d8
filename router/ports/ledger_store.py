"""``LedgerStore``: the port to the ledger that all routers share. The store adds each entry once, and sums entries
up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Resolution(StrEnum):
    """The length of the intervals, in UTC, for which sums are kept."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def ms(self) -> int:
        """The length of an interval in milliseconds."""
        return {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}[self.value]

    @property
    def kept_ms(self) -> int:
        """The time for which the sums of an interval are kept after its start, in milliseconds: minutes for 2 days,
        hours for 62, days for 800."""
        return {"minute": 2, "hour": 62, "day": 800}[self.value] * 86_400_000


CAPPED_LABEL = "feature"
"""The label whose values clients may choose."""
MAX_VALUES = 200
"""Values of CAPPED_LABEL that a tenant's sums tell apart within a day (UTC). Each costs sums of its own."""
REQUESTS = "requests"
"""The amount that counts requests, in entries that have it."""
OTHER = "other"
"""What stands in the sums for further values of CAPPED_LABEL. Documents of entries keep the value."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """The ledger entry of one request, as the store takes it.

    ``id`` is unique; the store adds an entry once, however often it is appended. ``at_ms`` is the time to which it is
    attributed, in milliseconds since the epoch. ``labels`` are the dimensions by which sums can be grouped, such as the
    team. There is one sum for each combination of their values, so there must be few values. Of CAPPED_LABEL only the
    first MAX_VALUES of a tenant's day are kept apart, the others count as OTHER. ``amounts`` are the numbers that are
    summed, such as tokens. ``document`` is JSON of the whole entry; the store keeps it as it is.

    ``part_of``: the id of the entry of which this is a part; "" for a whole entry. A whole entry replaces its parts in
    the sums, and a part that comes after it is not added. Of several parts, only the first to come counts REQUESTS.
    """

    id: str
    tenant: str
    at_ms: int
    labels: Mapping[str, str]
    amounts: Mapping[str, int]
    document: str = "{}"
    part_of: str = ""


@dataclass(frozen=True, slots=True)
class LedgerQuery:
    """A query for sums over the entries from ``start_ms`` (inclusive) to ``end_ms`` (exclusive), in milliseconds since
    the epoch.

    Both are rounded down to a multiple of ``resolution``. ``tenant`` None: all tenants. ``group_by`` has names of
    labels, and ``tenant`` for separate sums by tenant. ``by_interval``: each interval has separate sums.
    """

    start_ms: int
    end_ms: int
    resolution: Resolution = Resolution.HOUR
    tenant: str | None = None
    group_by: tuple[str, ...] = ()
    by_interval: bool = False


@dataclass(frozen=True, slots=True)
class LedgerSum:
    """The sums of one group. ``group`` has the value of each label of ``LedgerQuery.group_by``; "" if an entry lacks
    it. ``start_ms`` is the start of the interval, or None without ``by_interval``."""

    group: Mapping[str, str]
    amounts: Mapping[str, int]
    start_ms: int | None = None


def summed(query: LedgerQuery, rows: Iterable[tuple[int, Mapping[str, str], Mapping[str, int]]]) -> list[LedgerSum]:
    """Returns the sums of ``query`` over ``rows``. Pure; every implementation can use it.

    Each row has the start of its interval in milliseconds since the epoch, its labels, with ``tenant`` among them, and
    its amounts.
    """
    length = query.resolution.ms
    start, end = query.start_ms // length * length, query.end_ms // length * length
    found: dict[tuple[int, tuple[str, ...]], Counter[str]] = {}
    for at, labels, amounts in rows:
        if start <= at < end:
            key = (at if query.by_interval else 0, tuple(labels.get(name, "") for name in query.group_by))
            found.setdefault(key, Counter()).update(amounts)
    return [
        LedgerSum(dict(zip(query.group_by, group, strict=True)), dict(amounts), at if query.by_interval else None)
        for (at, group), amounts in sorted(found.items(), key=lambda row: row[0])
    ]


class LedgerStore(Protocol):
    """The ledger. Each coroutine raises StateUnavailableError if the store cannot be reached in time."""

    def record(self, entry: LedgerEntry) -> None:
        """Adds ``entry`` soon, once, and returns at once. It is for code that a request waits for.

        An entry waits on disk while the store cannot be reached, and survives the end of this process there.
        """
        ...

    async def append(self, entries: Sequence[LedgerEntry]) -> int:
        """Adds those of ``entries`` that were not added before, by their ids. Returns their number.

        If it raises, each may or may not have been added. It is safe to append all of them again.
        """
        ...

    async def sums(self, query: LedgerQuery) -> Sequence[LedgerSum]:
        """Returns the sums of ``query``, sorted by interval and group. Groups without entries are left out."""
        ...

    async def entry(self, tenant: str, entry_id: str) -> str | None:
        """Returns the document of an entry; None if there is none, or its retention has ended."""
        ...
