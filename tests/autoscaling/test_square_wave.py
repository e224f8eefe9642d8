"""The policy with replicas that carry out its targets, on a virtual clock."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.autoscaling.snapshots import Plant, config_of

WAVE_S = 1200
EDGES_S = (600, 1200, 1800, 2400)


def wave(low: float, high: float, elapsed_s: float) -> float:
    return high if elapsed_s % WAVE_S >= WAVE_S / 2 else low


@pytest.mark.parametrize(("low", "high"), [(5, 40), (2, 10), (20, 60)])
def test_a_square_wave_of_ten_minutes_has_two_changes_per_edge_at_most(low: float, high: float) -> None:
    plant = Plant(config_of(), lambda elapsed_s: wave(low, high, elapsed_s), replicas=2).run(3000)

    learnt = [second for second in plant.changes if second >= 1200]  # the first edge shows how steps grow with batches
    for edge in EDGES_S[1:]:
        assert 1 <= sum(edge <= second < edge + 600 for second in learnt) <= 2, (edge, learnt, plant.targets[edge])


def test_a_step_of_load_raises_the_target_within_two_seconds() -> None:
    plant = Plant(config_of(), lambda elapsed_s: wave(5, 40, elapsed_s), replicas=2).run(1900)

    first = min(second for second in plant.changes if second >= 1800)
    assert first - 1800 <= 2
    assert plant.targets[first] > plant.targets[1799]


def test_a_step_does_not_order_ever_more_replicas_while_they_start() -> None:
    plant = Plant(config_of(), lambda elapsed_s: wave(5, 40, elapsed_s), replicas=2, cold_start_s=200).run(1200)

    settled = plant.targets[1150]
    assert max(plant.targets) <= 2 * settled
    during = [plant.targets[second] for second in range(630, 800)]
    assert len(set(during)) == 1


def test_constant_load_settles_and_then_changes_nothing() -> None:
    plant = Plant(config_of(), lambda elapsed_s: 30.0, replicas=1).run(1500)

    assert max(plant.changes) < 700
    assert max(plant.queue_s[600:]) < 1.0


def test_a_ramp_is_followed_without_a_queue_and_without_steps_back() -> None:
    plant = Plant(config_of(), lambda elapsed_s: 5.0 + elapsed_s / 30, replicas=2).run(1200)

    after_start = plant.targets[60:]
    assert all(a <= b for a, b in pairwise(after_start))
    assert max(plant.queue_s[60:]) < 1.0


def test_load_that_ends_leaves_the_minimum_after_the_cooldown() -> None:
    plant = Plant(config_of(), lambda elapsed_s: 40.0 if elapsed_s < 600 else 0.0, replicas=8).run(1000)

    assert min(plant.targets[600:719]) > 1  # down_window_s
    assert plant.targets[-1] == 1
