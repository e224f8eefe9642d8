"""The square wave of ``load_tests.simulation.reality`` under the product's autoscaler, on the simulation's clock."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from statistics import median

import pytest

from load_tests.simulation.measures import measure
from load_tests.simulation.reality.__main__ import MOST_CHANGES, STUB, most_changes, outcome_of, square
from load_tests.simulation.reality.local_profile import LOCAL

HALF_S = 60.0
SEEDS = range(20)
COLD_START_S = 2.1  # as measured on the cluster


@cache  # one run serves each test of its seed
def run(seed: int) -> tuple[list[tuple[float, int]], list[float], float]:
    """Returns the changes of the target, the edges, and the part of the requests that was in time."""
    trace, edges = square(600.0, HALF_S, seed)
    outcome = outcome_of(trace, LOCAL, STUB, COLD_START_S, seed)
    return outcome.targets[1:], edges, measure(outcome).attainment  # the first is the target of the start


@pytest.mark.parametrize("seed", SEEDS)
def test_a_square_wave_changes_the_target_twice_an_edge_at_most(seed: int) -> None:
    targets, edges, _ = run(seed)
    assert most_changes(targets, edges) <= MOST_CHANGES, [
        [(round(at - edge, 1), target) for at, target in targets if edge <= at < edge + HALF_S] for edge in edges
    ]


def test_a_square_wave_is_followed_in_time() -> None:
    """The target is raised two seconds after most edges, and lowered after each edge down."""
    raised = []
    for seed in SEEDS:
        targets, edges, in_time = run(seed)
        assert in_time > 0.98
        before = STUB.least
        for number, (edge, end) in enumerate(pairwise([*edges, 600.0])):
            changes = [(at, target) for at, target in targets if edge <= at < end]
            if number % 2:
                assert changes, (seed, edge)
                assert changes[-1][1] < before
            else:
                raised += [at - edge for at, target in changes if target > before][:1]
            before = changes[-1][1] if changes else before
    assert median(raised) <= 2.0
    assert len(raised) >= 4.5 * len(SEEDS)
