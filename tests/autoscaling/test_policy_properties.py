from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.autoscaling.decision import Reason, TierDecision
from cluster.autoscaling.policy import AutoscalerState, decide
from cluster.autoscaling.snapshot import ReplicaState, Snapshot, TierSnapshot
from tests.autoscaling.snapshots import START_S, Bench, config_of, counters_of, ready, sample_of

numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.integers(-10, 10**6), st.sampled_from([0, 1e308, -1.0])
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Snapshots with whatever numbers a collector could pass on."""
    at_s = START_S + draw(st.floats(-100, 100))
    replicas = []
    for i in range(draw(st.integers(0, 4))):
        sample = replace(
            sample_of(at_s + draw(st.floats(-20, 20))),
            queued_prompt_tokens=draw(numbers),
            running_requests=draw(numbers),  # type: ignore[arg-type]  # a collector may be wrong
            kv_demand_tokens=draw(numbers),
            prefill_tokens_per_s=draw(numbers),
            decode_step_s=draw(numbers),
            decode_batch=draw(numbers),
        )
        state = draw(st.sampled_from(ReplicaState))
        replicas.append(replace(ready(at_s, draw(st.sampled_from([sample, None])), f"r{i}"), state=state))
    tier = TierSnapshot(
        "fast",
        draw(st.integers(0, 20)),
        tuple(replicas),
        counters_of(draw(st.integers(0, 10**6)), prompt=draw(numbers)),
        cold_start_s=draw(numbers),
        gpus_per_replica=draw(numbers),
    )
    return Snapshot(at_s, (tier,))


@given(st.lists(snapshots(), min_size=1, max_size=4), st.integers(0, 3), st.integers(3, 12))
@settings(max_examples=25, deadline=None)
def test_no_input_raises_and_targets_are_within_bounds(seen: list[Snapshot], least: int, most: int) -> None:
    config, state = config_of(min=least, max=most), AutoscalerState()

    for snapshot in seen:
        state, decisions = decide(config, state, snapshot)
        decision = decisions.tiers["fast"]
        held = decision.reason in (Reason.CLOCK, Reason.BAD_INPUT) or decisions.at_s != snapshot.at_s
        assert held or min(least, 1) <= decision.target <= most or decision.target == 0 == least
        assert held or decision.target >= min(least, most)


def settled(replicas: int, rate: int) -> tuple[Bench, TierDecision]:
    bench = Bench(replicas=replicas, rate=rate, running=2, frozen=True)
    return bench, bench.run(20)[-1]


@given(
    st.integers(1, 8),
    st.integers(0, 60),
    st.tuples(st.integers(0, 200_000), st.integers(0, 200), st.integers(0, 200), st.integers(0, 500)),
    st.tuples(st.integers(0, 200_000), st.integers(0, 200), st.integers(0, 200), st.integers(0, 500)),
)
@settings(max_examples=25, deadline=None)
def test_more_load_never_gives_a_lower_target(
    replicas: int, rate: int, load: tuple[int, int, int, int], more: tuple[int, int, int, int]
) -> None:
    bench, _ = settled(replicas, rate)

    def target_with(queued: int, running: int, waiting: int, arrivals: int) -> int:
        variant = replace(bench, queued=queued, arrivals=bench.arrivals + arrivals)
        variant.running, variant.waiting = 2 + running, waiting
        variant.edit = lambda at_s, tier: replace(  # the speed of a replica is no load
            tier,
            replicas=tuple(
                replace(each, sample=replace(each.sample, decode_step_s=0.022, decode_batch=2))
                for each in tier.replicas
                if each.sample
            ),
        )
        return variant.run(3)[-1].target

    assert target_with(*map(sum, zip(load, more, strict=True))) >= target_with(*load)


@given(st.integers(1, 8), st.integers(0, 100), st.integers(0, 50_000), st.floats(0, 0.999))
@settings(max_examples=25, deadline=None)
def test_a_second_call_within_the_interval_changes_nothing(
    replicas: int, rate: int, queued: int, later_s: float
) -> None:
    bench, _ = settled(replicas, rate)
    bench.queued = queued
    first_state, first = decide(bench.config, bench.state, bench.snapshot())
    again = replace(bench.snapshot(), at_s=bench.at_s + later_s)

    second_state, second = decide(bench.config, first_state, again)

    assert second_state is first_state
    assert second is first
    assert decide(bench.config, bench.state, bench.snapshot()) == (first_state, first)


@given(st.integers(1, 8), st.integers(0, 60), st.integers(0, 30))
@settings(max_examples=10, deadline=None)
def test_constant_load_without_a_queue_settles(replicas: int, rate: int, running: int) -> None:
    bench = Bench(replicas=replicas, rate=rate, running=running)
    bench.run(600)  # five minutes until the flow is known to be steady, and the down window

    decisions = bench.run(200)

    assert {decision.target for decision in decisions} == {decisions[0].target}
    assert all(decision.target == decision.previous for decision in decisions)


@given(st.integers(1, 6), st.integers(0, 80), st.integers(0, 40_000), st.integers(0, 50))
@example(replicas=1, rate=28, queued=0, running=0)  # the flow is confirmed in part
@settings(max_examples=10, deadline=None)
def test_every_change_has_a_cause(replicas: int, rate: int, queued: int, running: int) -> None:
    bench = Bench(replicas=replicas, rate=rate, queued=queued, running=running)

    for decision in bench.run(200):
        change = decision.target - decision.previous
        if change > 0 and decision.reason is Reason.FORECAST_FLOOR:
            assert decision.numbers["forecast_floor"] == decision.target
        elif change > 0:
            cause = [need for need in decision.needs if need.reason is decision.reason]
            assert cause
            assert cause[0].replicas > decision.previous
        elif change < 0:
            assert decision.reason is Reason.LOW_LOAD
            assert decision.numbers["peak"] <= decision.target


def test_the_state_before_is_not_changed() -> None:
    bench, _ = settled(2, 20)
    before = bench.state
    copy = repr(before)

    bench.queued = 1e6
    bench.run(5)

    assert repr(before) == copy


@pytest.mark.parametrize("at_s", [float("nan"), float("inf"), -1.0])
def test_a_clock_that_is_no_number_holds_all_targets(at_s: float) -> None:
    bench = Bench(replicas=3)

    state, decisions = decide(bench.config, bench.state, replace(bench.snapshot(), at_s=at_s))

    assert state is bench.state
    assert decisions.tiers["fast"].target == 3
    assert decisions.tiers["fast"].reason is Reason.BAD_INPUT
