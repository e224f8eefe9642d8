"""Tiers that both need more GPUs than their pool has, and whose loads waver."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from cluster.autoscaling.snapshot import WaitingRoom
from tests.autoscaling.gpu_pools import Load, Pool

PHASE_S = 15


def wavering(pool: Pool, phases: int) -> list[int]:
    """The replicas of the first tier in each second, while the tiers take turns in having more load."""
    found = []
    for phase in range(phases):
        for place, load in enumerate(pool.loads.values()):
            load.rate = 130.0 if (phase + place) % 2 else 90.0
            load.running = 40
        found += [pool.run(1)["one"] for _ in range(PHASE_S)]
    return found


def test_replicas_are_not_moved_to_and_fro_between_tiers_that_both_lack_some() -> None:
    pool = Pool(one=Load(4, 100.0, 40), two=Load(4, 100.0, 40))
    pool.run(180)
    found = wavering(pool, 24)
    moves = [second for second, (a, b) in enumerate(pairwise(found)) if a != b]
    assert all(b - a >= pool.config.fast.down_period_s for a, b in pairwise(moves))
    assert sum(pool.run(1).values()) == 8


def test_a_tier_that_has_far_more_load_gets_replicas_after_a_while() -> None:
    pool = Pool(one=Load(4, 60.0, 20), two=Load(4, 60.0, 20))
    pool.run(180)
    before = pool.run(1)
    pool.loads["one"].rate, pool.loads["one"].running = 400.0, 150
    after = pool.run(round(pool.config.fast.down_period_s) + 30)
    assert after["one"] > before["one"]


def test_a_tier_at_zero_gets_its_first_replica_of_a_pool_that_has_just_been_filled() -> None:
    pool = Pool(full=Load(7, 100.0, 40), asleep=Load(0))
    pool.run(180)
    while pool.loads["full"].replicas < 8:
        pool.loads["full"].rate += 1.0
        pool.run(1)
    pool.loads["asleep"].room = WaitingRoom(1, 30.0, 1.0)
    assert pool.run(2) == {"full": 7, "asleep": 1}


def test_a_tier_that_has_just_gone_to_zero_gets_its_first_replica_as_well() -> None:
    pool = Pool(full=Load(8, 104.0, 12), asleep=Load(0))
    pool.run(150)
    just = {name: replace(tier, changed_at_s=pool.at_s - 1.0) for name, tier in pool.state.tiers.items()}
    pool.state = replace(pool.state, tiers=just)
    pool.loads["asleep"].room = WaitingRoom(1, 30.0, 1.0)
    assert pool.run(2) == {"full": 7, "asleep": 1}
