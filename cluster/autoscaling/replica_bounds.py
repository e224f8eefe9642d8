"""``bounds_of``: returns the minimum and maximum number of replicas of a tier at a time, by its settings, schedules and
pins."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from cluster.autoscaling.config import WEEKDAYS, ScheduleConfig, TierScalingConfig
from cluster.autoscaling.decision import Reason
from cluster.autoscaling.snapshot import Pin

ONE_DAY = timedelta(days=1)


class Bounds(NamedTuple):
    """The minimum and the maximum number of replicas. ``because`` is the reason for the minimum: MINIMUM, SCHEDULE or
    PINNED."""

    least: int
    most: int
    because: Reason
    pin: Pin | None = None


def bounds_of(tier: TierScalingConfig, name: str, pins: Iterable[Pin], at_s: float, zone: ZoneInfo) -> Bounds:
    """Returns the bounds of the tier ``name`` at the instant ``at_s`` (Unix seconds). The last pin of the tier in
    ``pins`` that has not expired sets both bounds, from ``tier.min`` to ``tier.max``. Without one, a schedule that
    holds then, in ``zone``, may raise the minimum."""
    valid = [pin for pin in pins if pin.tier == name and pin.expires_at_s > at_s and pin.replicas >= 0]
    if valid:
        pinned = min(tier.max, max(tier.min, valid[-1].replicas))
        return Bounds(pinned, pinned, Reason.PINNED, valid[-1])
    now = datetime.fromtimestamp(at_s, UTC).astimezone(zone)
    scheduled = max((each.min for each in tier.schedules if holds(each, now)), default=0)
    if scheduled > tier.min:
        return Bounds(scheduled, tier.max, Reason.SCHEDULE)
    return Bounds(tier.min, tier.max, Reason.MINIMUM)


def holds(schedule: ScheduleConfig, now: datetime) -> bool:
    """Returns whether the local time ``now`` is within the schedule. A schedule that ends at or before its start ends
    on the next day."""
    clock = time(now.hour, now.minute, now.second, now.microsecond)
    today, yesterday = (WEEKDAYS[day.weekday()] in schedule.days for day in (now, now - ONE_DAY))
    if schedule.start < schedule.end:
        return today and schedule.start <= clock < schedule.end
    return (today and clock >= schedule.start) or (yesterday and clock < schedule.end)
