"""Whether a flow is steady, and what the autoscaler makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.autoscaling.arrival_rate import ArrivalCounts, dispersion_of, remembered
from cluster.autoscaling.config import FastLoopConfig
from cluster.autoscaling.falling_line import falling_line
from cluster.autoscaling.steadiness import FALLING, GAP_S, INTERVAL_S, LASTING, LEAST, MOST, Steadiness, steady
from tests.autoscaling.snapshots import Plant, config_of

FAST = FastLoopConfig()
ALWAYS = FastLoopConfig(steady_headroom=1.05)
FOLLOWED = FALLING + LASTING
"""The counts after which a fall is followed."""


def poisson(rate_of: Callable[[float], float], seed: int, batch: int = 1) -> list[float]:
    """Ten minutes of counts, whose requests come in batches."""
    draw = np.random.default_rng(seed)
    return [float(batch * draw.poisson(rate_of(at * INTERVAL_S) * INTERVAL_S / batch)) for at in range(MOST)]


def share_steady(rate_of: Callable[[float], float], dispersion: float = 1.0, batch: int = 1) -> float:
    return sum(steady(poisson(rate_of, seed, batch), dispersion) for seed in range(200)) / 200


@pytest.mark.parametrize("rate", [0.2, 3.0, 30.0, 1000.0])
def test_a_constant_rate_is_steady_whatever_chance_brings(rate: float) -> None:
    assert share_steady(lambda at_s: rate) >= 0.97


def test_batches_are_steady_for_what_they_are_and_not_as_single_requests() -> None:
    assert share_steady(lambda at_s: 6.0, dispersion=10.0, batch=10) >= 0.97
    assert share_steady(lambda at_s: 6.0, dispersion=1.0, batch=10) == 0.0


@pytest.mark.parametrize(
    "rate_of",
    [
        pytest.param(lambda at_s: 30 * (1 + at_s / 1800), id="up by a third"),
        pytest.param(lambda at_s: 30 * (1 - at_s / 1800), id="down by a third"),
        pytest.param(lambda at_s: 30.0 if at_s < 500 else 40.0, id="a step at the end"),
        pytest.param(lambda at_s: 30.0 if at_s < 300 else 36.0, id="a step in the middle"),
        pytest.param(lambda at_s: 30 * (1 + 0.25 * math.sin(at_s / 30)), id="waves of three minutes"),
        pytest.param(lambda at_s: 60.0 if at_s // 20 % 2 else 0.0, id="on and off"),
    ],
)
def test_a_rate_that_moves_is_not_steady(rate_of: Callable[[float], float]) -> None:
    assert share_steady(rate_of) <= 0.05


def observed(counters: list[tuple[float, float]], dispersion: float = 1.0) -> Steadiness:
    state = Steadiness()
    for at_s, arrivals in counters:
        state = state.observe(at_s, arrivals, dispersion)
    return state


def test_nothing_is_known_before_five_minutes() -> None:
    counters = [(at_s, 30 * at_s) for at_s in map(float, range(301))]
    assert not observed(counters[:-1]).is_steady(299.0)
    assert observed(counters).is_steady(300.0)


@pytest.mark.parametrize(
    "next_counter",
    [(999.0, 30.0 * 999 + 0.5), (1000.5, 30.0 * 999), (1040.0, 30.0 * 1040)],
    ids=["the clock goes back", "the counter goes back", "a gap"],
)
def test_what_was_known_is_forgotten_when_counts_cannot_be_compared(next_counter: tuple[float, float]) -> None:
    state = observed([(at_s, 30 * at_s) for at_s in map(float, range(1001))])
    assert state.is_steady(1000.0)
    after = state.observe(*next_counter, 1.0)
    assert after == Steadiness(since_s=next_counter[0], since=next_counter[1])


def test_a_flow_whose_counters_are_missing_is_not_steady_any_more() -> None:
    state = observed([(at_s, 30 * at_s) for at_s in map(float, range(1001))])
    assert state.is_steady(1000.0 + GAP_S - 0.1)
    assert not state.is_steady(1000.0 + GAP_S)


def test_the_memory_is_bounded_and_late_counts_are_those_of_an_interval() -> None:
    state = observed([(at_s * 25.0, at_s * 100.0) for at_s in range(100)])
    assert state.counts == (80.0,) * MOST
    assert state.dispersions == (1.0,) * MOST


def test_an_idle_tier_is_not_steady() -> None:
    assert not observed([(at_s * INTERVAL_S, 7.0) for at_s in range(MOST)]).is_steady((MOST - 1) * INTERVAL_S)


@pytest.mark.parametrize(("batch", "most"), [(1, 4), (8, 10), (30, 10)])
def test_a_constant_rate_is_seldom_now_steady_and_now_not(batch: int, most: int) -> None:
    """The dispersion of one minute is noisy where requests come in batches."""
    draw = np.random.default_rng(3)
    points: tuple[ArrivalCounts, ...] = ()
    state, arrivals, found = Steadiness(), 0.0, []
    for at_s in range(4200):
        arrivals += float(batch * draw.poisson(100 / batch))
        points = remembered(points, ArrivalCounts(float(at_s), arrivals), FAST.flow_window_s)
        state = state.observe(float(at_s), arrivals, dispersion_of(points, FAST.flow_window_s))
        found.append(state.is_steady(float(at_s)))
    an_hour = found[600:]
    assert sum(an_hour) >= 0.85 * len(an_hour)
    assert sum(a != b for a, b in pairwise(an_hour)) <= most


@given(
    st.lists(st.floats(0, 1e9), min_size=LEAST, max_size=MOST),
    st.floats(1.0, 1e3),
    st.floats(1.0, 10.0),
)
def test_a_flow_that_is_steady_stays_so_if_more_of_its_variance_is_chance(
    counts: list[float], dispersion: float, more: float
) -> None:
    assert not steady(counts, dispersion) or steady(counts, dispersion * more)


@pytest.mark.parametrize("rate", [10.0, 20.0])
def test_a_steady_flow_needs_fewer_replicas_once_it_is_known_to_be_steady(rate: float) -> None:
    steadily = Plant(config_of(), lambda elapsed_s: rate, replicas=1).run(1200)
    always = Plant(config_of(ALWAYS), lambda elapsed_s: rate, replicas=1).run(1200)
    assert steadily.targets[:300] == always.targets[:300]
    assert steadily.targets[-1] < always.targets[-1]
    assert max(steadily.queue_s[600:]) < 1.0


def test_a_wave_has_its_headroom_as_ever() -> None:
    def wave(elapsed_s: float) -> float:
        return 30 + 10 * math.sin(elapsed_s / 60)

    plants = [Plant(config, wave, replicas=1).run(1200) for config in (config_of(), config_of(ALWAYS))]
    assert plants[0].targets == plants[1].targets


def test_less_headroom_than_that_of_a_steady_flow_is_kept() -> None:
    little = [FastLoopConfig(headroom=0.1), FastLoopConfig(headroom=0.1, steady_headroom=0.1)]
    plants = [Plant(config_of(fast), lambda elapsed_s: 20.0, replicas=1).run(1200) for fast in little]
    assert plants[0].targets == plants[1].targets


def share_falling(rate_of: Callable[[float], float], dispersion: float = 1.0) -> float:
    return sum(falling_line(poisson(rate_of, seed)[:FALLING], dispersion) is not None for seed in range(200)) / 200


@pytest.mark.parametrize("rate", [6.0, 60.0, 600.0])
def test_a_line_down_is_falling_whatever_chance_brings(rate: float) -> None:
    assert share_falling(lambda at_s: max(0.0, rate * (1 - at_s / 300))) >= 0.97


@pytest.mark.parametrize(
    "rate_of",
    [
        pytest.param(lambda at_s: 30.0, id="constant"),
        pytest.param(lambda at_s: 30 * (1 + at_s / 200), id="up"),
        pytest.param(lambda at_s: 30.0 if at_s < 100 else 15.0, id="a step down"),
        pytest.param(lambda at_s: 30 * (1 - at_s / 200) if at_s < 140 else 25.0, id="down and back"),
        pytest.param(lambda at_s: 30 * (1 + 0.4 * math.sin(at_s / 20)), id="waves of two minutes"),
        pytest.param(lambda at_s: 0.0, id="nothing"),
    ],
)
def test_what_is_no_line_down_is_not_falling(rate_of: Callable[[float], float]) -> None:
    assert share_falling(rate_of) <= 0.02


def test_a_fall_is_known_after_three_minutes_and_followed_after_five_until_the_counters_are_missing() -> None:
    fall = [(at_s * INTERVAL_S, 1000.0 * at_s - 25 * at_s**2) for at_s in range(FOLLOWED + 1)]
    last_s = fall[-1][0]
    assert not observed(fall[:FALLING]).is_falling(fall[FALLING - 1][0])
    assert observed(fall[: FALLING + 1]).is_falling(fall[FALLING][0])
    assert observed(fall[:-1]).fall(fall[-2][0]) is None
    assert observed(fall).fall(last_s) is not None
    assert observed(fall).fall(last_s + GAP_S) is None


def test_a_fall_between_two_bursts_is_not_followed() -> None:
    """It lasts for two minutes after three that were constant."""
    rates = [50.0] * FALLING + [50.0 - 4 * place for place in range(1, 7)]
    counters, arrivals = [(0.0, 0.0)], 0.0
    for place, rate in enumerate(rates, 1):
        arrivals += rate * INTERVAL_S
        counters.append((place * INTERVAL_S, arrivals))
    last_s = counters[-1][0]
    assert observed(counters).is_falling(last_s)
    assert observed(counters).fall(last_s) is None


def test_a_load_that_falls_is_followed_sooner_and_without_a_queue_also_if_not_by_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def down(elapsed_s: float) -> float:
        return max(4.0, 60.0 - max(0.0, elapsed_s - 300) / 12)

    monkeypatch.setattr(Steadiness, "fall", lambda self, at_s: None)

    slowly = FastLoopConfig(falling_window_s=FAST.down_window_s)
    sooner, later = (Plant(config_of(fast), down, replicas=12).run(1000) for fast in (FAST, slowly))
    assert sooner.targets[:300] == later.targets[:300]
    assert sum(sooner.targets) < 0.97 * sum(later.targets)
    assert max(sooner.queue_s[60:]) < 1.0


@pytest.mark.parametrize("after_s", [0.0, 10.0])
def test_the_rate_of_a_fall_is_that_of_now_and_its_error_is_what_chance_explains(after_s: float) -> None:
    """40 requests/s that become 4 a minute fewer, for almost five minutes."""
    found = []
    for seed in range(300):
        draw, arrivals, counters = np.random.default_rng(seed), 0.0, [(0.0, 0.0)]
        for place in range(FOLLOWED):
            middle_s = (place + 0.5) * INTERVAL_S
            arrivals += draw.poisson((40 - middle_s / 15) * INTERVAL_S)
            counters.append(((place + 1) * INTERVAL_S, arrivals))
        fall = observed(counters).fall(FOLLOWED * INTERVAL_S + after_s)
        if fall is not None:
            found.append(fall)
    assert len(found) >= 285
    rates = [fall.rate for fall in found]
    assert np.mean(rates) == pytest.approx(40 - (280 + after_s) / 15, abs=0.3)
    assert np.mean([fall.error for fall in found]) == pytest.approx(np.std(rates), rel=0.25)


def test_a_surge_in_the_midst_of_a_fall_is_met_as_any_other() -> None:
    def down_and_up(elapsed_s: float) -> float:
        return 60.0 - elapsed_s / 12 if elapsed_s < 400 else 80.0

    plant = Plant(config_of(), down_and_up, replicas=12).run(399)
    assert plant.state.tiers["fast"].steadiness.fall(plant.at_s) is not None
    plant.run(21)
    assert next(second for second in range(400, 420) if plant.targets[second] > plant.targets[399]) <= 406


def test_a_wave_whose_falls_last_for_minutes_is_served_as_it_comes_back() -> None:
    """Half of it falls along a line, or nearly."""
    plant = Plant(config_of(), lambda elapsed_s: 30 + 10 * math.sin(elapsed_s / 100), replicas=4).run(2000)
    assert max(plant.queue_s[120:]) < 1.0


def test_a_fall_that_comes_in_clumps_is_known_and_not_followed_by_its_line() -> None:
    draw, arrivals, counters = np.random.default_rng(2), 0.0, [(0.0, 0.0)]
    for place in range(FOLLOWED):
        arrivals += 20.0 * draw.poisson((40 - 2.5 * place) * INTERVAL_S / 20)
        counters.append(((place + 1) * INTERVAL_S, arrivals))
    at_s = FOLLOWED * INTERVAL_S
    assert observed(counters, dispersion=20.0).is_falling(at_s)
    assert observed(counters, dispersion=20.0).fall(at_s) is None


def test_a_fall_that_is_followed_by_its_line_takes_fewer_replicas_still_and_leaves_no_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def down(elapsed_s: float) -> float:
        return max(4.0, 60.0 - max(0.0, elapsed_s - 300) / 12)

    by_line = Plant(config_of(), down, replicas=12).run(1000)
    monkeypatch.setattr(Steadiness, "fall", lambda self, at_s: None)
    sooner = Plant(config_of(), down, replicas=12).run(1000)
    assert by_line.targets[:300] == sooner.targets[:300]
    assert sum(by_line.targets[500:]) < 0.97 * sum(sooner.targets[500:])
    assert max(by_line.queue_s[60:]) < 1.0
