"""What autoscalers of LLM services are known to get wrong; each name is that of the public report."""

from __future__ import annotations

from dataclasses import replace

from cluster.autoscaling.decision import Reason
from cluster.autoscaling.snapshot import LatencyReport, ReplicaSnapshot, ReplicaState, TierSnapshot
from tests.autoscaling.snapshots import START_S, Bench, Plant, config_of, report_of, sample_of


def test_no_traffic_without_latencies_lowers_the_target() -> None:
    """ai-dynamo/dynamo 6985: averages of nothing were NaN, and NaN meant no decision."""

    def reports(at_s: float) -> tuple[LatencyReport, ...]:
        return (report_of(at_s, ttft_s=0.0, count=0),)

    assert Bench(replicas=7, latencies=reports).run(150)[-1].target == 1


def test_an_outage_of_metrics_does_not_leave_fewer_than_the_minimum() -> None:
    """ai-dynamo/dynamo 14575: without metrics the minimum was not enforced."""
    bench = Bench(config=config_of(min=3), replicas=1)
    bench.edit = lambda at_s, tier: replace(
        tier, replicas=tuple(replace(each, sample=None) for each in tier.replicas), counters={}
    )
    decision = bench.tick()
    assert (decision.target, decision.reason) == (3, Reason.MINIMUM)


def test_prompts_that_are_too_long_for_the_objective_do_not_raise_the_target_for_ever() -> None:
    """ai-dynamo/dynamo 6145: where a prompt's own prefill exceeds the objective, every load is too high."""
    config = config_of(slos={"standard": {"ttft_p99_s": 0.04, "itl_p99_s": 0.1}})  # a prompt takes 0.05 s
    plant = Plant(config, lambda elapsed_s: 10.0, replicas=2).run(600)
    enough = Plant(config_of(), lambda elapsed_s: 10.0, replicas=2).run(600)

    assert max(plant.targets) <= 2 * max(enough.targets)


def test_steps_that_are_too_slow_for_the_objective_do_not_raise_the_target_for_ever() -> None:
    config = config_of(slos={"standard": {"ttft_p99_s": 2.0, "itl_p99_s": 0.01}})  # a step takes 0.02 s
    plant = Plant(config, lambda elapsed_s: 10.0, replicas=2).run(600)

    assert len(set(plant.targets[450:])) == 1
    assert max(plant.targets) < 20


def test_a_replica_that_drains_for_ever_keeps_no_tier_from_zero() -> None:
    """ray-project/ray 38118, llm-d/llm-d-router 2529: the gauge of what is gone blocked each step down."""

    def with_ghost(at_s: float, tier: TierSnapshot) -> TierSnapshot:
        ghost = ReplicaSnapshot("ghost", ReplicaState.DRAINING, START_S, sample_of(at_s, queued=1e6, running=42))
        return replace(tier, replicas=(*tier.replicas, ghost))

    bench = Bench(config=config_of(min=0, idle_s=30), replicas=1, edit=with_ghost)
    assert bench.run(60)[-1].target == 0


def test_an_operator_who_changed_the_number_by_hand_is_followed() -> None:
    """ai-dynamo/dynamo 4420: the planner compared with what it had set itself."""
    bench = Bench(replicas=4, rate=20.0, running=20)
    bench.run(200)
    settled = bench.target

    bench.replicas = bench.target = 12

    assert bench.run(200)[-1].target == settled


def test_demand_is_seen_when_nothing_finishes() -> None:
    """ai-dynamo/dynamo 8861: demand that is counted at completion is never above capacity."""

    def unfinished(at_s: float, tier: TierSnapshot) -> TierSnapshot:
        stuck_at = 400
        counters = {
            priority: replace(
                each, finished=min(each.finished, stuck_at), output_tokens=100.0 * min(each.finished, stuck_at)
            )
            for priority, each in tier.counters.items()
        }
        return replace(tier, counters=counters)

    bench = Bench(replicas=2, rate=20.0, running=20, edit=unfinished)
    bench.run(40)
    bench.rate, bench.running = 80.0, 100

    assert bench.run(40)[-1].target > 6


def test_queues_that_vanish_with_new_replicas_do_not_take_them_away() -> None:
    """ray-project/ray 18925: many new replicas shortened the mean queue, so they were stopped, and so on."""
    plant = Plant(config_of(), lambda elapsed_s: 30.0, replicas=1, cold_start_s=5).run(1500)

    ups = [second for second in plant.changes if plant.targets[second] > plant.targets[second - 1]]
    assert max(ups) < 60
    assert len(plant.changes) <= 5
