"""Metrics that are wrong, old or missing: no runaway, and no freeze of what is healthy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cluster.autoscaling.decision import Reason
from cluster.autoscaling.policy import AutoscalerState, decide
from cluster.autoscaling.snapshot import ReplicaSample, ReplicaSnapshot, ReplicaState, Snapshot, TierSnapshot
from engine.api import Priority
from tests.autoscaling.snapshots import START_S, Bench, Plant, config_of, report_of

RATE = 32.0
NEED = 7  # replicas that the healthy plant settles at
FAULT_S = 600.0


def healthy(edit: Callable[[float, TierSnapshot], TierSnapshot] = lambda elapsed_s, tier: tier) -> Plant:
    return Plant(config_of(), lambda elapsed_s: RATE, replicas=NEED, edit=edit).run(900)


def with_samples(tier: TierSnapshot, change: Callable[[ReplicaSample], ReplicaSample], count: int = 1) -> TierSnapshot:
    """The tier with the samples of ``count`` ready replicas changed."""
    left = count
    replicas = []
    for each in tier.replicas:
        if left and each.sample is not None:
            each, left = replace(each, sample=change(each.sample)), left - 1
        replicas.append(each)
    return replace(tier, replicas=tuple(replicas))


def from_fault(edit: Callable[[TierSnapshot], TierSnapshot]) -> Callable[[float, TierSnapshot], TierSnapshot]:
    return lambda elapsed_s, tier: edit(tier) if elapsed_s >= FAULT_S else tier


def arrivals_times(tier: TierSnapshot, factor: int) -> TierSnapshot:
    counters = {
        priority: replace(each, arrivals=factor * each.arrivals, prompt_tokens=factor * each.prompt_tokens)
        for priority, each in tier.counters.items()
    }
    return replace(tier, counters=counters)


SAMPLE_FAULTS = [
    "queued_prompt_tokens",
    "running_requests",
    "waiting_requests",
    "kv_demand_tokens",
    "prefill_tokens_per_s",
    "decode_step_s",
]


def test_the_need_of_the_healthy_plant() -> None:
    assert set(healthy().targets[300:]) == {NEED}


@pytest.mark.parametrize("name", SAMPLE_FAULTS)
@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_a_metric_that_jumps_by_100_never_gives_twice_the_need(name: str, factor: float) -> None:
    def jump(sample: ReplicaSample) -> ReplicaSample:
        return replace(sample, **{name: factor * getattr(sample, name)})

    targets = healthy(from_fault(lambda tier: with_samples(tier, jump))).targets[600:]

    assert max(targets) <= 2 * NEED
    assert min(targets) >= NEED - 1


@pytest.mark.parametrize("name", SAMPLE_FAULTS)
@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_the_only_replica_with_a_wrong_metric_does_not_run_away(name: str, factor: float) -> None:
    def jump(sample: ReplicaSample) -> ReplicaSample:
        return replace(sample, **{name: factor * getattr(sample, name)})

    edit = from_fault(lambda tier: with_samples(tier, jump, count=99))
    plant = Plant(config_of(), lambda elapsed_s: 2.0, replicas=1, edit=edit).run(900)

    assert max(plant.targets[600:]) <= 2 * max(plant.targets[300:600])


def test_arrivals_counted_100_times_do_not_run_away_nor_are_learnt() -> None:
    plant = healthy(from_fault(lambda tier: arrivals_times(tier, 100)))

    assert max(plant.targets) <= 2 * NEED


def test_latencies_100_times_too_high_do_not_run_away() -> None:
    def slow(elapsed_s: float, tier: TierSnapshot) -> TierSnapshot:
        ttft_s = 100.0 if elapsed_s >= FAULT_S else 0.2
        return replace(tier, latencies=(report_of(START_S + elapsed_s, ttft_s),))

    assert max(healthy(slow).targets) <= 2 * NEED


@pytest.mark.parametrize("age_s", [-3600.0, -2.0, 6.0, 3600.0])
def test_a_replica_with_old_or_future_metrics_counts_as_the_mean(age_s: float) -> None:
    def old(sample: ReplicaSample) -> ReplicaSample:
        return replace(sample, observed_at_s=sample.observed_at_s - age_s, queued_prompt_tokens=1e9)

    plant = healthy(from_fault(lambda tier: with_samples(tier, old)))

    assert set(plant.targets[600:]) == {NEED}


def test_a_replica_that_never_reports_does_not_stop_the_others_from_being_scaled() -> None:
    def mute(elapsed_s: float, tier: TierSnapshot) -> TierSnapshot:
        first, *others = tier.replicas
        return replace(tier, replicas=(replace(first, sample=None), *others))

    plant = Plant(config_of(), lambda elapsed_s: 40.0 if 200 <= elapsed_s < 600 else 10.0, replicas=4, edit=mute).run(
        1000
    )

    assert max(plant.targets[205:600]) > plant.targets[199]
    assert plant.targets[-1] < max(plant.targets[205:600])


def test_stale_metrics_of_most_replicas_hold_the_target() -> None:
    bench = Bench(replicas=4, rate=10, running=2)
    bench.run(150)
    bench.edit = lambda at_s, tier: replace(tier, replicas=tuple(replace(each, sample=None) for each in tier.replicas))
    before = bench.target

    decisions = bench.run(10)

    assert {decision.target for decision in decisions} == {before}
    assert {decision.reason for decision in decisions} == {Reason.NO_FRESH_DATA}
    assert decisions[-1].why_not_more.numbers == {"ready": before, "fresh": 0}


def test_a_tier_with_bad_input_is_held_and_another_is_not() -> None:
    config = config_of()
    config = config.model_copy(update={"tiers": {**config.tiers, "other": config.tiers["fast"]}})
    bench = Bench(replicas=1, rate=40, running=40)
    state = AutoscalerState()
    targets = []
    for _ in range(5):
        good = bench.snapshot().tiers[0]
        broken = replace(good, name="other", replicas=None)  # type: ignore[arg-type]  # a collector's fault
        state, decisions = decide(config, state, Snapshot(bench.at_s, (good, broken)))
        targets.append((decisions.tiers["fast"].target, decisions.tiers["other"].target))
        bench.at_s, bench.arrivals = bench.at_s + 1, bench.arrivals + 40

    assert max(fast for fast, _ in targets) > 1
    assert {other for _, other in targets} == {1}
    assert decisions.tiers["other"].reason is Reason.BAD_INPUT
    assert "NoneType" in decisions.tiers["other"].detail


def test_replicas_that_never_become_ready_are_made_up_for_once() -> None:
    def stuck(elapsed_s: float, tier: TierSnapshot) -> TierSnapshot:
        since_s = START_S - 1000.0
        dead = ReplicaSnapshot("dead", ReplicaState.STARTING, since_s)
        serving = [each for each in tier.replicas if each.state is ReplicaState.READY]
        return replace(tier, replicas=(*serving[: tier.target - 1], dead))

    bench = Bench(replicas=3, rate=10, running=4, edit=stuck)
    decisions = bench.run(300)

    assert max(decision.target for decision in decisions) <= 2 * 3
    assert decisions[-1].numbers["stuck"] == 1
    assert len({decision.target for decision in decisions[-100:]}) == 1


@pytest.mark.parametrize("jump_s", [-3600.0, -5.0, 3600.0])
def test_a_clock_that_jumps_holds_for_a_moment_and_goes_on(jump_s: float) -> None:
    bench = Bench(replicas=2, rate=10, running=3)
    bench.run(150)
    before = bench.target

    bench.at_s += jump_s
    first = bench.tick()
    bench.run(3)
    bench.rate, bench.running = 80, 60

    assert first.target == before
    assert bench.run(8)[-1].target > before


def test_counters_that_start_anew_are_no_negative_flow() -> None:
    bench = Bench(replicas=2, rate=10, running=3)
    bench.run(150)
    before = bench.target

    bench.arrivals = 0.0
    decisions = bench.run(100)

    assert {decision.target for decision in decisions} == {before}
    assert min(decision.numbers.get("requests_per_s", 0) for decision in decisions) >= 0


def test_counters_that_are_missing_leave_the_queues_to_decide() -> None:
    bench = Bench(
        replicas=2, running=3, queued=100_000, starting=True, edit=lambda at_s, tier: replace(tier, counters={})
    )

    decisions = bench.run(30)

    assert decisions[-1].target == 4  # twice the ready replicas, since nothing else confirms the queues
    assert decisions[-1].why_not_more.reason is Reason.UNCONFIRMED


def test_a_policy_that_starts_anew_goes_on_from_the_present_target() -> None:
    bench = Bench(replicas=6, rate=10, running=2)
    bench.run(30)
    bench.state = AutoscalerState()

    decisions = bench.run(50)

    assert {decision.target for decision in decisions} == {6}
    assert decisions[0].why_not_fewer.reason is Reason.STABILISING


def test_a_tier_that_is_missing_from_one_snapshot_is_remembered_until_it_is_not_configured() -> None:
    config = config_of()
    config = config.model_copy(update={"tiers": {**config.tiers, "other": config.tiers["fast"]}})
    bench = Bench(replicas=1, rate=40, running=40)
    state = AutoscalerState()
    for second in range(5):
        fast = bench.snapshot().tiers[0]
        tiers = (fast,) if second == 4 else (fast, replace(fast, name="other"))
        before = state
        state, _ = decide(config, state, Snapshot(bench.at_s, tiers))
        bench.at_s, bench.arrivals = bench.at_s + 1, bench.arrivals + 40

    assert state.tiers["other"] == before.tiers["other"]
    alone = config.model_copy(update={"tiers": {"fast": config.tiers["fast"]}})
    assert decide(alone, state, Snapshot(bench.at_s, bench.snapshot().tiers))[0].tiers.keys() == {"fast"}


def test_a_class_without_latencies_is_no_fault() -> None:
    report = replace(report_of(START_S, 0.1), priority=Priority.INTERACTIVE)
    bench = Bench(replicas=2, rate=5, latencies=lambda at_s: (replace(report, observed_at_s=at_s),))

    assert bench.run(5)[-1].target == 2


def test_a_tier_whose_first_answers_have_not_ended_is_raised_by_its_queue() -> None:
    """The length of its answers is not known yet, which must not look like answers that cost nothing."""
    bench = Bench(replicas=1)

    def unfinished(at_s: float, tier: TierSnapshot) -> TierSnapshot:
        counters = {each: replace(one, finished=0, output_tokens=0.0) for each, one in tier.counters.items()}
        return replace(tier, counters=counters)

    bench.edit = unfinished
    bench.run(30)
    bench.rate, bench.running, bench.waiting = 2.0, 300, 100  # they need one and a half KV caches
    assert max(decision.target for decision in bench.run(10)) == 2
