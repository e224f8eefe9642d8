from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import pytest

from cluster.autoscaling.arrival_rate import (
    ArrivalCounts,
    fell_below,
    flow_of,
    point_of,
    rate_since_change,
    remembered,
)
from cluster.autoscaling.snapshot import ClassCounters, TierSnapshot
from engine.api import Priority

WINDOW_S = 60.0


def points_of(rate: Callable[[float], float], seconds: int, step_s: float = 1.0) -> tuple[ArrivalCounts, ...]:
    points: tuple[ArrivalCounts, ...] = ()
    arrivals = 0.0
    for i in range(int(seconds / step_s)):
        at_s = i * step_s
        points = remembered(points, ArrivalCounts(at_s, arrivals, 0, 10 * arrivals, arrivals, 5 * arrivals), WINDOW_S)
        arrivals += rate(at_s) * step_s
    return points


def rate_of(points: tuple[ArrivalCounts, ...]) -> float:
    flow = flow_of(points, WINDOW_S)
    assert flow is not None
    return flow.rate


@pytest.mark.parametrize("step_s", [0.1, 1.0, 5.0])
def test_a_constant_rate_is_measured_in_bounded_memory(step_s: float) -> None:
    points = points_of(lambda at_s: 10.0, 120, step_s)

    assert rate_of(points) == pytest.approx(10.0)
    assert len(points) <= 70


def test_a_step_is_seen_in_full_after_two_seconds() -> None:
    assert rate_of(points_of(lambda at_s: 40.0 if at_s >= 100 else 5.0, 103)) == pytest.approx(40.0)


def test_a_fall_is_averaged() -> None:
    assert rate_of(points_of(lambda at_s: 5.0 if at_s >= 100 else 40.0, 103)) > 35


def test_chance_does_not_pass_for_a_higher_rate() -> None:
    random = Random(7)
    counts = [sum(random.random() < 0.01 for _ in range(1000)) for _ in range(600)]  # 10 a second, nearly Poisson
    points: tuple[ArrivalCounts, ...] = ()
    found, arrivals = [], 0
    for second, count in enumerate(counts):
        points = remembered(points, ArrivalCounts(float(second), arrivals), WINDOW_S)
        arrivals += count
        if second > WINDOW_S:
            found.append(rate_of(points))

    assert sum(rate > 14 for rate in found) < 0.02 * len(found)


def test_batches_of_requests_every_three_seconds_are_no_surge() -> None:
    points = points_of(lambda at_s: 60.0 if at_s % 3 == 0 else 0.0, 123)

    assert [rate_of(points[:end]) for end in range(len(points) - 6, len(points))] == pytest.approx([20.0] * 6, rel=0.1)


def test_lengths_are_those_of_the_window() -> None:
    flow = flow_of(points_of(lambda at_s: 10.0, 60), WINDOW_S)
    assert flow is not None
    assert (flow.prompt_tokens, flow.output_tokens, flow.refused) == (10.0, 5.0, 0.0)


def test_batch_work_is_not_counted() -> None:
    counters = {
        Priority.BATCH: ClassCounters(arrivals=1000),
        Priority.STANDARD: ClassCounters(arrivals=3, prompt_tokens=30.0),
        Priority.INTERACTIVE: ClassCounters(arrivals=2, prompt_tokens=10.0),
    }
    assert point_of(TierSnapshot("fast", 1, counters=counters), 5.0, 5.0) == ArrivalCounts(5.0, 5, 0, 40.0)


@pytest.mark.parametrize("counted_at_s", [0.0, 12.0])
def test_old_and_future_counters_are_none(counted_at_s: float) -> None:
    counters = {Priority.STANDARD: ClassCounters(arrivals=3)}
    assert point_of(TierSnapshot("fast", 1, counters=counters, counted_at_s=counted_at_s), 10.0, 5.0) is None


def test_one_point_is_no_flow() -> None:
    assert flow_of((ArrivalCounts(0.0),), WINDOW_S) is None
    assert flow_of((), WINDOW_S) is None


def test_a_step_from_nothing_is_seen_at_every_instant_from_then_on() -> None:
    """Its edge must not pass for batches, by which the rate would fall back to its average."""
    found = []
    points: tuple[ArrivalCounts, ...] = ()
    for half in range(400):
        at_s = half / 2
        points = remembered(points, ArrivalCounts(at_s, max(0.0, at_s - 100.0) * 13.0), WINDOW_S)
        if at_s >= 102:
            found.append(rate_of(points))
    assert min(found[:60]) > 10.0


def test_batches_are_still_no_surge() -> None:
    """Twenty requests at once, every ten seconds."""
    points: tuple[ArrivalCounts, ...] = ()
    found = []
    for second in range(300):
        points = remembered(points, ArrivalCounts(float(second), 20 * (second // 10)), WINDOW_S)
        if second > 2 * WINDOW_S:
            found.append(rate_of(points))
    assert max(found) < 2.4


def poisson(rates: Sequence[float], seed: int = 3) -> list[tuple[ArrivalCounts, ...]]:
    """Returns the points after each second, in which requests came at random with that second's rate."""
    random = Random(seed)
    points: tuple[ArrivalCounts, ...] = ()
    found, arrivals = [], 0
    for second, rate in enumerate(rates):
        points = remembered(points, ArrivalCounts(float(second), arrivals), WINDOW_S)
        found.append(points)
        arrivals += sum(random.random() < rate / 1000 for _ in range(1000))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_after_a_step_chance_clusters_are_compared_with_what_came_since_it(seed: int) -> None:
    """The mean of a minute has what was before the step in it, so that each cluster would pass for another step."""
    found = [rate_of(points) for points in poisson([3.0] * 100 + [12.0] * 60, seed)[108:]]
    assert max(found) < 14.5
    assert sum(rate < 10.0 for rate in found) <= 1


def test_after_a_drop_the_rate_is_that_of_the_window() -> None:
    points = points_of(lambda at_s: 5.0 if at_s >= 100 else 40.0, 121)
    assert rate_since_change(points, WINDOW_S) == pytest.approx(5.0)
    flow = flow_of(points, WINDOW_S)
    assert flow is not None
    assert flow.rate == flow.mean_rate == pytest.approx((40 * 40 + 20 * 5) / 60)


def test_a_second_step_within_the_window_is_seen_as_soon_as_the_first() -> None:
    steps = points_of(lambda at_s: 60.0 if at_s >= 130 else 36.0 if at_s >= 100 else 20.0, 133)
    assert rate_of(steps) == pytest.approx(60.0)


def test_what_comes_in_the_first_seconds_is_no_step() -> None:
    """Five seconds are too short to say what was before."""
    for end in range(2, 8):
        assert rate_since_change(points_of(lambda at_s: 10.0 if at_s >= 2 else 0.0, end), WINDOW_S) is None


@pytest.mark.parametrize(("since_s", "fell"), [(0.0, False), (1.0, False), (3.0, True), (15.0, True)])
def test_arrivals_fell_below_a_forecast_when_chance_does_not_explain_it(since_s: float, fell: bool) -> None:
    points = points_of(lambda at_s: 2.0 if at_s >= 100 else 12.0, 101 + int(since_s))
    assert fell_below(points, 12.0, 20.0, WINDOW_S) is fell


def test_chance_is_no_drop_below_a_forecast() -> None:
    found = [fell_below(points, 12.0, 20.0, WINDOW_S) for points in poisson([12.0] * 600)[30:]]
    assert sum(found) < 0.02 * len(found)


@pytest.mark.parametrize("points", [(), (ArrivalCounts(0.0),)])
def test_without_two_points_nothing_fell(points: tuple[ArrivalCounts, ...]) -> None:
    assert not fell_below(points, 100.0, 20.0, WINDOW_S)
