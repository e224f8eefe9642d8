"""Forecasts outlive Serve's controller."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from cluster.autoscaling.application_scaler import LOST_S
from cluster.autoscaling.config import AutoscalingConfig, ForecastConfig
from cluster.autoscaling.decision import Decisions, Reason
from cluster.autoscaling.forecast import DAY_S, Forecast
from cluster.autoscaling.forecast_memory import Forecasts
from cluster.autoscaling.forecast_scaling import ForecastScaling
from cluster.autoscaling.forecast_store import ForecastStore, document_of, read_forecasts
from cluster.autoscaling.snapshot import Pin
from tests.autoscaling.publishers import publisher
from tests.autoscaling.serve_loop import Serve, T, config_of
from tests.cluster.ray_metrics import record

CONFIG = ForecastConfig(interval_s=600.0, slots=24)


def after_days(days: float, busy: float = 100.0) -> Forecast:
    """A series that has ``busy`` from noon on and a tenth of that before."""
    state, at_s = Forecast(), 0.0
    while at_s < days * DAY_S:
        at_s += CONFIG.interval_s
        state = state.observe(busy if at_s % DAY_S > DAY_S / 2 else busy / 10, at_s, CONFIG)
    return state


def stored(rate: Forecast) -> Forecasts:
    return read_forecasts(json.dumps(document_of({"fast": ForecastScaling(rate=rate)})).encode())


def test_the_season_is_known_after_a_restart_and_the_level_is_learnt_anew() -> None:
    rate = stored(after_days(3)).get("fast", ForecastScaling()).rate
    assert rate.season == after_days(3).season
    assert rate.ahead(0.0, 3600.0, CONFIG) is None
    at_s = 3 * DAY_S + DAY_S / 2 - 3600  # in the morning, of a day with twice the load
    for _ in range(CONFIG.min_observations):
        at_s += CONFIG.interval_s
        rate = rate.observe(20.0, at_s, CONFIG)
    without = Forecast()
    for place in range(CONFIG.min_observations):
        without = without.observe(20.0, at_s + place * CONFIG.interval_s, CONFIG)
    afternoon = rate.ahead(at_s, 3600.0, CONFIG)
    assert afternoon is not None
    assert afternoon > 140.0
    assert without.ahead(at_s, 3600.0, CONFIG) == pytest.approx(20.0)


def test_a_first_day_goes_on_after_a_restart() -> None:
    half, whole = after_days(0.5), after_days(1.0)
    rate, at_s = stored(half)["fast"].rate, 0.5 * DAY_S
    while not rate.season:
        at_s += CONFIG.interval_s
        assert at_s <= DAY_S
        rate = rate.observe(100.0 if at_s % DAY_S > DAY_S / 2 else 10.0, at_s, CONFIG)
    assert rate.season[:12] == pytest.approx(whole.season[:12], rel=0.1)
    assert rate.season[14:] == pytest.approx(whole.season[14:], rel=0.1)


def of_all(series: dict[str, list[Any]]) -> bytes:
    return json.dumps({"fast": {"rate": series, "prompt_tokens": series, "output_tokens": series}}).encode()


@pytest.mark.parametrize(
    "document",
    [
        b"{",
        b"[]",
        b'{"fast": {}}',
        b'{"fast": null}',
        of_all({"season": ["a"], "sums": [], "visits": []}),
        of_all({"season": [1, 2], "sums": [1], "visits": [1]}),
        of_all({"season": [1, 2], "sums": [1, 2], "visits": [1, 2]}),
        of_all({"season": [], "sums": [], "visits": [1, 2]}),
        of_all({"season": [0, 2], "sums": [], "visits": []}),  # a load would be divided by 0
        of_all({"season": [float("nan")], "sums": [], "visits": []}),
    ],
)
def test_what_cannot_be_read_is_learnt_anew(document: bytes) -> None:
    assert read_forecasts(document) == {}


@dataclass
class Memory:
    """A memory whose stored forecasts and pins can be read once ``read`` is set."""

    known: Forecasts = field(default_factory=dict)
    pinned: tuple[Pin, ...] = ()
    read: bool = True

    def is_read(self) -> bool:
        return self.read

    def forecasts(self) -> Forecasts:
        return self.known if self.read else {}

    def remember(self, forecasts: Forecasts) -> None:
        self.known = read_forecasts(json.dumps(document_of(forecasts)).encode())

    def pins(self) -> tuple[Pin, ...]:
        return self.pinned if self.read else ()


def serve_with(memory: Memory, config: AutoscalingConfig | None = None) -> Serve:
    serve = Serve(config or config_of("fast"), memory.pins)
    serve.scaler.remember_in(memory)
    return serve


def test_the_first_decision_knows_the_pins_and_waits_until_they_are_read() -> None:
    memory = Memory(pinned=(Pin("fast", 3, T + 3600.0),), read=False)
    serve = serve_with(memory)
    serve.run(LOST_S - 1)
    assert not serve.decisions
    memory.read = True
    serve.run(0.2)
    assert serve.decisions[0].tiers["fast"].reason is Reason.PINNED


def test_a_store_that_never_answers_holds_no_decision_for_ever() -> None:
    serve = serve_with(Memory(read=False))
    serve.run(LOST_S + 1)
    assert serve.decisions


def test_a_season_that_is_read_late_is_taken_up_and_not_replaced_by_what_was_learnt_without_it() -> None:
    season = after_days(2)
    memory = Memory({"fast": ForecastScaling(rate=season)}, read=False)
    serve = serve_with(memory, config_of("fast").model_copy(update={"forecast": ForecastConfig(slots=24)}))
    serve.run(LOST_S + 30)
    assert memory.known["fast"].rate == season
    memory.read = True
    serve.run(30)
    assert memory.known["fast"].rate.season == pytest.approx(season.season, rel=0.2)


class FailingOnce(ForecastStore):
    """Ray's head does not answer at first."""

    def __init__(self) -> None:
        super().__init__("late")
        self.reads, self.written = 0, False

    def read(self) -> Forecasts:
        self.reads += 1
        if self.reads == 1:
            raise OSError("no answer")
        return stored(after_days(2))

    def write(self, forecasts: Forecasts) -> None:
        self.written = True


def test_what_could_not_be_read_at_first_is_read_with_a_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    record(monkeypatch)
    store = FailingOnce()
    told = publisher("late", forecasts=store)
    wait_until(lambda: store.reads == 1)
    assert not told.is_read()
    told.publish(Decisions(0.0, {}))
    wait_until(told.is_read)
    assert told.forecasts()["fast"].rate.season == after_days(2).season
    assert not store.written


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_restarted_controller_goes_on_with_the_season() -> None:
    memory = Memory({"fast": ForecastScaling(rate=after_days(2)), "gone": ForecastScaling(rate=after_days(2))})
    config = config_of("fast").model_copy(update={"forecast": ForecastConfig(slots=24)})
    serve = serve_with(memory, config)
    serve.run(30)
    assert memory.known["fast"].rate.season
    assert set(memory.known) == {"fast"}
    before: Any = memory.known["fast"].rate.season
    serve.restart()
    serve.scaler.remember_in(memory)
    serve.run(30)
    assert memory.known["fast"].rate.season == pytest.approx(before, rel=0.2)
