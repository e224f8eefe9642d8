from __future__ import annotations

from dataclasses import replace
from math import pi, sin

import pytest

from cluster.autoscaling.config import ForecastConfig
from cluster.autoscaling.forecast import DAY_S, Forecast

CONFIG = ForecastConfig(interval_s=900.0, slots=96, alpha=0.3, beta=0.1, gamma=0.3)


def daily(at_s: float) -> float:
    return 100.0 + 80.0 * sin(2 * pi * at_s / DAY_S)


def after(values: list[float], config: ForecastConfig = CONFIG) -> Forecast:
    forecast = Forecast()
    for i, value in enumerate(values):
        forecast = forecast.observe(value, (i + 1) * config.interval_s, config)
    return forecast


@pytest.mark.parametrize("hour", [0, 3, 6, 9, 12, 18, 22])
def test_a_day_is_forecast_from_the_days_before(hour: int) -> None:
    observations = 3 * 96 + 4 * hour
    forecast = after([daily((i + 0.5) * 900) for i in range(observations)])

    now_s = observations * 900.0
    expected = max(daily(now_s + 450), daily(now_s + 1350), daily(now_s + 2250), daily(now_s + 3150))
    assert forecast.ahead(now_s, 3600, CONFIG) == pytest.approx(expected, rel=0.12)


def test_without_a_season_the_forecast_is_behind_in_the_morning() -> None:
    flat = ForecastConfig(interval_s=900.0, slots=1, alpha=0.3, beta=0.0)
    values = [daily((i + 0.5) * 900) for i in range(3 * 96)]
    now_s = 3 * DAY_S

    season, none = after(values), after(values, flat)

    assert (none.ahead(now_s, 3600, flat) or 0) < 0.9 * (season.ahead(now_s, 3600, CONFIG) or 0)


def test_a_constant_is_forecast_as_it_is() -> None:
    assert after([50.0] * 300).ahead(300 * 900.0, 3600, CONFIG) == pytest.approx(50.0, rel=1e-6)


def test_a_sudden_fall_does_not_keep_the_old_level_for_a_minute() -> None:
    usual = ForecastConfig()
    forecast = after([100.0] * 20 + [5.0] * 3, usual)
    assert 23 * usual.interval_s - 20 * usual.interval_s == 60
    assert (forecast.ahead(23 * usual.interval_s, 60, usual) or 0.0) < 20


def test_a_rise_is_forecast_for_the_end_of_a_cold_start() -> None:
    usual = ForecastConfig()
    rising = [10.0 + 0.5 * n for n in range(12)]  # for four minutes
    ahead = after(rising, usual).ahead(12 * usual.interval_s, 60, usual) or 0.0
    assert ahead == pytest.approx(10.0 + 0.5 * 14, rel=0.05)


def test_a_jump_counts_as_twice_what_was_forecast() -> None:
    before = after([50.0] * 20)
    jumped = before.observe(5000.0, 21 * 900.0, CONFIG)
    assert replace(jumped, cut=False) == before.observe(101.0, 21 * 900.0, CONFIG)


@pytest.mark.parametrize("to", [120.0, 190.0, 700.0])
def test_the_rest_of_a_jump_is_no_trend_either(to: float) -> None:
    """A step counts as twice what was forecast, and again, so that its last part is small."""
    forecast = after([50.0] * 20 + [to] * 12)
    ahead = [forecast.ahead(32 * 900.0, 3600, CONFIG) or 0.0]
    for more in range(6):
        forecast = forecast.observe(to, (33 + more) * 900.0, CONFIG)
        ahead.append(forecast.ahead((33 + more) * 900.0, 3600, CONFIG) or 0.0)
    assert max(ahead) <= 1.01 * to


def test_there_is_no_forecast_before_there_are_observations() -> None:
    least = CONFIG.min_observations
    assert after([5.0] * (least - 1)).ahead((least - 1) * 900.0, 900, CONFIG) is None
    assert after([5.0] * least).ahead(least * 900.0, 900, CONFIG) == pytest.approx(5.0)


def test_a_day_without_requests_is_no_season_to_divide_by() -> None:
    assert after([0.0] * 300).ahead(300 * 900.0, 900, CONFIG) == 0.0


@pytest.mark.parametrize("slots", [1, 24, 288])
def test_other_parts_of_the_day_begin_a_new_season_at_the_present_level(slots: int) -> None:
    observations = 3 * 96 + 24  # at six in the morning, where the day's factor is the highest
    now_s = observations * 900.0
    known = after([daily((i + 0.5) * 900) for i in range(observations)])

    changed = CONFIG.model_copy(update={"slots": slots})
    forecast = known.with_slots(slots, now_s).observe(daily(now_s + 450), now_s + 900, changed)

    assert forecast.ahead(now_s + 900, 900, changed) == pytest.approx(daily(now_s + 1350), rel=0.1)
    assert known.with_slots(96, now_s) is known
