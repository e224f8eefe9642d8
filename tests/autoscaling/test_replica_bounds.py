from __future__ import annotations

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest

from cluster.autoscaling.config import WEEKDAYS, ScheduleConfig, TierScalingConfig, Weekday
from cluster.autoscaling.decision import Reason
from cluster.autoscaling.replica_bounds import bounds_of
from cluster.autoscaling.snapshot import Pin

UTC_ZONE = ZoneInfo("UTC")


def at(day: int, hour: int, minute: int = 0) -> float:
    """An instant of January 2026, of which the 5th is a Monday."""
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC).timestamp()


def tier_of(start: time, end: time, days: tuple[Weekday, ...] = WEEKDAYS) -> TierScalingConfig:
    return TierScalingConfig(min=1, max=9, schedules=(ScheduleConfig(min=4, start=start, end=end, days=days),))


@pytest.mark.parametrize(
    ("instant", "least"),
    [(at(5, 7, 59), 1), (at(5, 8), 4), (at(5, 17, 59), 4), (at(5, 18), 1), (at(10, 9), 1)],  # the 10th: a Saturday
)
def test_a_schedule_holds_from_start_to_end_on_its_days(instant: float, least: int) -> None:
    tier = tier_of(time(8), time(18), ("mon", "tue", "wed", "thu", "fri"))
    bounds = bounds_of(tier, "fast", (), instant, UTC_ZONE)
    assert bounds.least == least
    assert bounds.because is (Reason.SCHEDULE if least == 4 else Reason.MINIMUM)


@pytest.mark.parametrize(
    ("instant", "least"), [(at(5, 22), 4), (at(6, 5), 4), (at(6, 6), 1), (at(6, 22), 1), (at(5, 5), 1)]
)
def test_a_schedule_over_midnight_belongs_to_the_day_of_its_start(instant: float, least: int) -> None:
    assert bounds_of(tier_of(time(22), time(6), ("mon",)), "fast", (), instant, UTC_ZONE).least == least


def test_a_schedule_is_in_local_time() -> None:
    tier = tier_of(time(8), time(9))
    assert bounds_of(tier, "fast", (), at(5, 7, 30), ZoneInfo("Europe/Berlin")).least == 4
    assert bounds_of(tier, "fast", (), at(5, 8, 30), ZoneInfo("Europe/Berlin")).least == 1


def test_the_last_valid_pin_counts_until_it_expires() -> None:
    tier = tier_of(time(8), time(18))
    pins = (Pin("fast", 2, at(5, 12)), Pin("fast", 7, at(5, 10)), Pin("other", 5, at(5, 12)))

    assert bounds_of(tier, "fast", pins, at(5, 9), UTC_ZONE)[:2] == (7, 7)
    assert bounds_of(tier, "fast", pins, at(5, 11), UTC_ZONE)[:2] == (2, 2)
    assert bounds_of(tier, "fast", pins, at(5, 12), UTC_ZONE)[:2] == (4, 9)


def test_a_pin_stays_within_the_maximum() -> None:
    pins = (Pin("fast", 50, at(5, 12)), Pin("fast", -1, at(5, 12)))
    assert bounds_of(tier_of(time(8), time(18)), "fast", pins, at(5, 9), UTC_ZONE)[:2] == (9, 9)


def test_a_pin_from_before_a_higher_minimum_stays_within_it() -> None:
    """Serve gives no fewer, and the decision would tell of replicas that are not there."""
    tier = TierScalingConfig(min=3, max=9)
    assert bounds_of(tier, "fast", (Pin("fast", 1, at(5, 12)),), at(5, 9), UTC_ZONE)[:2] == (3, 3)
