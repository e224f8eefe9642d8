"""The periods over which limits count, as slots of time. Pure.

A counter holds an amount for each slot. A minute is a sliding window of one-second slots. A slot counts until 60 s
after its end, so the uses within any 60 s never exceed the limit, and a use counts for 61 s at most. A day and a month
are those of the calendar, with one slot each. The day resets at 00:00 UTC, the month at 00:00 UTC on the first.

``cluster/state/scripts/limits.lua`` computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from router.ports.limit_store import LimitName

SECOND_MS = 1000
DAY_MS = 86_400_000
MINUTE_SLOTS = 60
MONTHS_BEFORE_EPOCH = 1970 * 12

Counter = Mapping[int, int]
"""The amount used in each slot, by the slot's number. Treated as immutable."""


def slots_at(name: LimitName, now_ms: int) -> tuple[int, int]:
    """Returns the numbers of the oldest slot of ``name`` that still counts at ``now_ms``, in milliseconds since the
    epoch, and of the current slot. A slot is a second, a day or a month, by the period of the limit.

    Seconds and days are numbered from the epoch. Months are numbered as 12 * year + month, from 0 for January.
    """
    match name:
        case LimitName.TOKENS_PER_DAY:
            return now_ms // DAY_MS, now_ms // DAY_MS
        case LimitName.MONEY_PER_MONTH:
            month = month_of(now_ms // DAY_MS)
            return month, month
        case _:
            return now_ms // SECOND_MS - MINUTE_SLOTS, now_ms // SECOND_MS


def end_ms(name: LimitName, slot: int) -> int:
    """Returns the time at which the slot with the number ``slot`` stops counting, in milliseconds since the epoch."""
    match name:
        case LimitName.TOKENS_PER_DAY:
            return (slot + 1) * DAY_MS
        case LimitName.MONEY_PER_MONTH:
            return first_day(slot + 1) * DAY_MS
        case _:
            return (slot + MINUTE_SLOTS + 1) * SECOND_MS


def month_of(day: int) -> int:
    """Returns the month, as 12 * year + month (January is 0), of a day, which is numbered from the epoch. The calendar
    is Gregorian.

    It counts years from March, so that the leap day is the last of its year: Howard Hinnant, "chrono-Compatible
    Low-Level Date Algorithms", civil_from_days.
    """
    era, of_era = divmod(day + 719_468, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    return (era * 400 + year) * 12 + (5 * of_year + 2) // 153 + 2


def first_day(month: int) -> int:
    """Returns the first day of a month, in days since the epoch. The inverse of ``month_of``. Uses Hinnant's
    days_from_civil."""
    year, of_year = divmod(month - 2, 12)
    era, of_era = divmod(year, 400)
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + (153 * of_year + 2) // 5 - 719_468


def pruned(counter: Counter, first: int) -> Counter:
    """Returns ``counter`` without the slots before ``first``, which no longer count."""
    return {slot: amount for slot, amount in counter.items() if slot >= first}


def added(counter: Counter, slot: int, amount: int) -> Counter:
    """Returns ``counter`` with ``amount``, which may be negative, added to ``slot``."""
    return {**counter, slot: counter.get(slot, 0) + amount}


def reset_ms(name: LimitName, counter: Counter, now_ms: int) -> int:
    """Returns the milliseconds until every used slot of ``counter`` has expired. 0: none is used."""
    newest = max((slot for slot, amount in counter.items() if amount > 0), default=None)
    return 0 if newest is None else end_ms(name, newest) - now_ms


def wait_ms(name: LimitName, counter: Counter, limit: int, amount: int, now_ms: int) -> int | None:
    """Returns the milliseconds until ``amount`` fits under ``limit``, if nothing else is used.

    ``counter`` must be pruned. 0: now, which an amount of 0 always does: a request that costs nothing runs though the
    budget is overdrawn. None: never, since it exceeds the whole ``limit``.
    """
    if amount > limit:
        return None
    used = sum(counter.values())
    if not amount or used + amount <= limit:
        return 0
    for slot in sorted(counter):
        used -= counter[slot]
        if used + amount <= limit:
            return end_ms(name, slot) - now_ms
    raise AssertionError("an empty counter has room for any amount within the limit")
