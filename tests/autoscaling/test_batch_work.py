from __future__ import annotations

from dataclasses import replace

from cluster.autoscaling.decision import Reason
from cluster.autoscaling.snapshot import BatchWork, ClassCounters, TierSnapshot
from engine.api import Priority
from tests.autoscaling.snapshots import START_S, Bench

DAY_S = 86_400.0
HOUR_OF_WORK = BatchWork(START_S + DAY_S, prompt_tokens=1.8e7, output_tokens=1.8e6)  # 1,800 s each, of one replica


def flooded(at_s: float, tier: TierSnapshot) -> TierSnapshot:
    """The tier with a queue of batch requests alone."""
    replicas = tuple(
        replace(
            each,
            sample=replace(
                each.sample,
                queued_prompt_tokens=5e6,
                batch_prompt_tokens=5e6,
                waiting_requests=10_000,
                batch_requests=10_000,
                kv_demand_tokens=6e6,
                batch_kv_tokens=6e6,
            ),
        )
        for each in tier.replicas
        if each.sample
    )
    counters = {Priority.BATCH: ClassCounters(arrivals=10_000_000, prompt_tokens=5e9)}
    return replace(tier, replicas=replicas, counters=counters)


def test_queued_batch_work_does_not_raise_the_target() -> None:
    assert {each.target for each in Bench(replicas=1, edit=flooded).run(60)} == {1}


def test_work_that_the_floor_finishes_in_time_does_not_raise_the_target() -> None:
    bench = Bench(replicas=1, rate=0.5, running=1, batch_work=(HOUR_OF_WORK,))
    assert {each.target for each in bench.run(60)} == {1}


def test_a_deadline_that_the_floor_would_miss_raises_the_target() -> None:
    soon = replace(HOUR_OF_WORK, deadline_at_s=START_S + 1800)
    bench = Bench(replicas=1, rate=0.5, running=1)
    for running in (1, 8, 40, 1):  # so that the growth of steps with their batch is known
        bench.running = running
        bench.run(15)
    bench.batch_work = (soon,)

    decisions = bench.run(20)

    assert decisions[-1].needs[0].reason is Reason.BATCH_DEADLINE
    assert decisions[-1].target == 4  # 3,600 s of work and a tenth, in 1,740 s, at 78 % of the replicas' time


def test_a_nearer_deadline_behind_a_small_one_is_seen() -> None:
    small = BatchWork(START_S + 100, prompt_tokens=1000.0)
    large = replace(HOUR_OF_WORK, deadline_at_s=START_S + 1800)
    bench = Bench(replicas=1, rate=0.5, running=1, batch_work=(large, small))

    assert bench.run(10)[-1].target > 1
