"""Usage reports: parses the query parameters, and makes the rows of the report as JSON or CSV. Pure."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from router.errors import InvalidRequestError
from router.ledger.price import money
from router.ports.ledger_store import LedgerQuery, LedgerSum, Resolution

DIMENSIONS = ("tenant", "team", "feature", "tier")
"""JSON fields that every row has."""
GROUPS = (*DIMENSIONS, "version", "key", "outcome")
"""What usage can be grouped by."""
AMOUNTS = ("requests", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "cache_hits")
WIDTHS = {"1m": Resolution.MINUTE, "1h": Resolution.HOUR, "1d": Resolution.DAY}
MAX_INTERVALS = 10_000
DAY_MS = 86_400_000
MARGIN_MS = 3_600_000  # sums that are about to go are not relied on


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """The parsed query of a usage report. ``query`` is for the ledger store; its sums are grouped by ``group_by``.
    ``csv``: the report is CSV, not JSON."""

    query: LedgerQuery
    group_by: tuple[str, ...]
    csv: bool = False


def question_of(parameters: Mapping[str, str], now: float, tenant: str | None) -> UsageQuestion:
    """Returns the usage query in the URL's query ``parameters``. ``now`` is the present time, in seconds since the
    epoch.

    ``tenant`` is the only tenant whose usage may be seen; None: ``parameters`` may name a tenant, or leave it out to
    mean all. Without ``start`` and ``end`` the query is for the present month up to now. Raises InvalidRequestError
    that names the wrong parameter.
    """
    known = {"start", "end", "group_by", "bucket_width", "format"} | ({"tenant"} if tenant is None else set())
    for name in parameters.keys() - known:
        shown = name.encode("ascii", "backslashreplace").decode()[:64]
        raise InvalidRequestError(f"There is no parameter '{shown}'.", "unknown_parameter", shown)
    groups = _groups(parameters.get("group_by", ""))
    width = parameters.get("bucket_width")
    if width is not None and width not in WIDTHS:
        raise InvalidRequestError(f"bucket_width must be one of {', '.join(WIDTHS)}.", "invalid_value", "bucket_width")
    if parameters.get("format", "json") not in ("json", "csv"):
        raise InvalidRequestError("format must be json or csv.", "invalid_value", "format")
    end = _time(parameters, "end", now + 1)  # the present second included
    start = _time(parameters, "start", _month_start(min(now, end)))
    if start >= end:
        raise InvalidRequestError("start must be before end.", "invalid_value", "start")
    resolution = WIDTHS[width] if width is not None else finest(int(start * 1000), int(end * 1000), int(now * 1000))
    if width is not None and int(start * 1000) < now * 1000 - resolution.kept_ms:
        days = resolution.kept_ms // DAY_MS
        message = f"Sums of {resolution.value}s are kept for {days} days; the range begins before that."
        raise InvalidRequestError(message, "invalid_value", "bucket_width")
    length = resolution.ms
    start_ms, end_ms = int(start * 1000) // length * length, -(-int(end * 1000) // length) * length
    if width is not None and (end_ms - start_ms) // length > MAX_INTERVALS:
        message = f"The range has more than {MAX_INTERVALS} intervals."
        raise InvalidRequestError(message, "invalid_value", "bucket_width")
    wanted = tuple(dict.fromkeys((*DIMENSIONS, *groups)))
    asked = tenant or parameters.get("tenant") or None
    query = LedgerQuery(start_ms, end_ms, resolution, asked, wanted, by_interval=width is not None)
    return UsageQuestion(query, groups or DIMENSIONS, parameters.get("format") == "csv")


def rows_of(question: UsageQuestion, sums: Sequence[LedgerSum]) -> list[dict[str, Any]]:
    """Returns the rows of the report, one for each of ``sums``.

    A dimension outside ``group_by`` has its value if the whole row shares it, else null. ``cost`` is in the currency of
    the prices. ``start`` and ``end`` of an interval are in seconds since the epoch.
    """
    groups: dict[tuple[int | None, tuple[str, ...]], list[LedgerSum]] = {}
    for each in sums:
        place = (each.start_ms, tuple(each.group[name] for name in question.group_by))
        groups.setdefault(place, []).append(each)
    return [_row(question, start_ms, parts) for (start_ms, _), parts in groups.items()]


def csv_of(question: UsageQuestion, rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns ``rows`` as CSV (RFC 4180) with a header line. Text that a spreadsheet would run as a formula is quoted
    by an apostrophe."""
    interval = ["start", "end"] if question.query.by_interval else []
    columns = [*interval, *dict.fromkeys((*DIMENSIONS, *question.group_by)), *AMOUNTS, "cost"]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([[_cell(row[name]) for name in columns] for row in rows])
    return text.getvalue()


def _row(question: UsageQuestion, start_ms: int | None, parts: Sequence[LedgerSum]) -> dict[str, Any]:
    names = dict.fromkeys((*DIMENSIONS, *question.group_by))
    values = {name: {part.group[name] for part in parts} for name in names}
    amounts: Counter[str] = Counter()
    for part in parts:
        amounts.update(part.amounts)
    row: dict[str, Any] = {}
    if start_ms is not None:
        row |= {"start": start_ms // 1000, "end": (start_ms + question.query.resolution.ms) // 1000}
    row |= {name: next(iter(found)) if len(found) == 1 else None for name, found in values.items()}
    row |= {name: amounts[name] for name in AMOUNTS}
    return row | {"cost": money(amounts["cost"])}


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in groups:
        if name not in GROUPS:
            raise InvalidRequestError(f"group_by takes {', '.join(GROUPS)}.", "invalid_value", "group_by")
    return groups


def _time(parameters: Mapping[str, str], name: str, default: float) -> float:
    """Returns a time in seconds since the epoch: a number of them, or a date or time of ISO 8601, in UTC by default."""
    if (text := parameters.get(name)) is None:
        return default
    try:
        if text.isascii() and text.isdigit():
            found = float(text)
        else:
            moment = datetime.fromisoformat(text)
            found = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        found = -1.0
    if not 0 <= found < 1e11:
        message = f"{name} must be seconds since the epoch, or a date or time of ISO 8601."
        raise InvalidRequestError(message, "invalid_value", name)
    return found


def _month_start(now: float) -> float:
    return datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()


def finest(start_ms: int, end_ms: int, now_ms: int) -> Resolution:
    """Returns the finest resolution whose sums are kept for the whole range. Arguments are in milliseconds since the
    epoch. Ranges longer than a day do not use minutes, since too many would be read."""
    if end_ms - start_ms <= DAY_MS and start_ms >= now_ms - Resolution.MINUTE.kept_ms + MARGIN_MS:
        return Resolution.MINUTE
    return Resolution.HOUR if start_ms >= now_ms - Resolution.HOUR.kept_ms + MARGIN_MS else Resolution.DAY


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
