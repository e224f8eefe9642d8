"""Settings of the forecast that change while the autoscaler runs: its state stays, and is that of other settings."""

from __future__ import annotations

import pytest

from cluster.autoscaling.config import AutoscalingConfig, ForecastConfig
from cluster.autoscaling.forecast import Forecast
from cluster.autoscaling.forecast_scaling import ForecastScaling
from cluster.autoscaling.policy import AutoscalerState
from cluster.autoscaling.tier_state import TierState
from tests.autoscaling.snapshots import OUTPUT, PROMPT, Bench, config_of


def with_forecast(**settings: object) -> AutoscalingConfig:
    return config_of().model_copy(update={"forecast": ForecastConfig.model_validate(settings)})


def seasoned() -> AutoscalerState:
    """The state after some days, each of which was like the other and steady."""
    rate, prompt, output = (
        Forecast(5000, level, season=(1.0,) * ForecastConfig().slots) for level in (20.0, PROMPT, OUTPUT)
    )
    return AutoscalerState(tiers={"fast": TierState(slow=ForecastScaling(None, 1.0, rate, prompt, output))})


@pytest.mark.parametrize("slots", [1, 24, 288])
@pytest.mark.parametrize("before", [AutoscalerState(), seasoned()], ids=["first day", "with a season"])
def test_a_tier_is_scaled_after_a_change_of_the_parts_of_a_day(slots: int, before: AutoscalerState) -> None:
    bench = Bench(replicas=2, rate=20.0, running=20, state=before)
    bench.run(120)

    bench.config = with_forecast(slots=slots)
    decisions = bench.run(300)  # asserts that no decision tells of an error
    bench.rate, bench.running = 60.0, 60

    assert bench.run(30)[-1].target > decisions[-1].target


def test_a_forecast_that_is_switched_off_sets_no_floor_any_more() -> None:
    bench = Bench(replicas=8, rate=40.0, running=30)
    bench.run(420)
    bench.rate, bench.running = 2.0, 2
    bench.config = with_forecast(enabled=False)

    last = bench.run(400)[-1]

    assert last.numbers["forecast_floor"] == 0
    assert last.target < 4
