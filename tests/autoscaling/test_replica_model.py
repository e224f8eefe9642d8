from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.autoscaling.arrival_rate import ArrivalRate
from cluster.autoscaling.replica_model import ReplicaMeasurements, ReplicaModel
from cluster.autoscaling.slowness import learnt_slowness
from cluster.autoscaling.snapshot import TierSnapshot
from tests.autoscaling.snapshots import PREFILL, Bench, config_of

MODEL = ReplicaModel(prefill_tokens_per_s=10_000.0, step_s=0.02, request_s=0.001)


@given(st.floats(0.1, 5.0), st.floats(0, 2000), st.floats(1, 500))
def test_the_closed_form_is_the_balance_of_tokens(rate: float, prompt: float, output: float) -> None:
    """At the rate that one replica serves, steps of the batch by Little's law take as long as the objective says."""
    itl_s = 0.08
    rate = 1.0 / MODEL.replicas(ArrivalRate(1.0, prompt, output), itl_s)

    batch = rate * output * itl_s
    share = 1.0 - rate * MODEL.prefill_s(prompt)

    assert MODEL.step(batch) / share == pytest.approx(itl_s)


def test_the_cache_limits_what_the_objective_would_allow() -> None:
    flow, small = ArrivalRate(10.0, 100.0, 200.0), ReplicaModel(10_000.0, 0.02, 0.001, sequences=8.0)

    needed = small.replicas(flow, 0.08)

    assert needed > MODEL.replicas(flow, 0.08)
    each = flow.rate / needed
    itl_s = small.step_s / (1 - each * small.work_s(100.0, 200.0))
    assert each * flow.output_tokens * itl_s == pytest.approx(8.0)


def test_chunks_are_prefilled_in_steps_that_read_the_weights_anyway() -> None:
    chunked = replace(MODEL, chunk_tokens=500.0)
    assert chunked.work_s(1000.0, 100.0) == pytest.approx(0.1 - 2 * 0.02 + 0.1)
    assert chunked.replicas(ArrivalRate(5.0, 1000.0, 100.0), 1e6) == pytest.approx(1.0)  # each step has a chunk


def test_steps_are_fitted() -> None:
    measured = ReplicaMeasurements().with_prefill(5000.0)
    for batch in (1, 2, 4, 8, 16, 32):
        for _ in range(20):
            measured = measured.with_step(batch, 0.02 + 0.001 * batch)
    model = measured.model()
    assert model.step_s == pytest.approx(0.02, rel=0.01)
    assert model.request_s == pytest.approx(0.001, rel=0.01)
    assert model.prefill_tokens_per_s == 5000.0


def test_a_single_size_of_batch_says_nothing_of_growth() -> None:
    assert ReplicaMeasurements().with_step(8, 0.05).model() == ReplicaModel(0.0, 0.05, 0.0)


@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_a_measurement_that_jumps_is_not_believed_for_minutes(factor: float) -> None:
    measured = ReplicaMeasurements()
    for _ in range(100):
        measured = measured.with_prefill(5000.0)
    for _ in range(300):
        measured = measured.with_prefill(5000.0 * factor)
    assert 5000 / 1.5 <= measured.prefill.value <= 5000 * 1.5


def test_a_replica_that_has_really_changed_is_learnt_in_the_end() -> None:
    measured = ReplicaMeasurements()
    for rate in [5000.0] * 100 + [15_000.0] * 2000:
        measured = measured.with_prefill(rate)
    assert measured.prefill.value == pytest.approx(15_000.0, rel=0.01)


def test_a_wrong_first_measurement_is_replaced() -> None:
    assert ReplicaMeasurements().with_prefill(5e6).with_prefill(5000.0).model().prefill_tokens_per_s == 5000.0


def speeds_of(bench: Bench, model: int, factor: float) -> None:
    """Has all replicas report that they are of ``model``, and prefill ``factor`` times as fast."""

    def edit(at_s: float, tier: TierSnapshot) -> TierSnapshot:
        replicas = [
            each
            if each.sample is None
            else replace(each, sample=replace(each.sample, model=model, prefill_tokens_per_s=factor * PREFILL))
            for each in tier.replicas
        ]
        return replace(tier, replicas=tuple(replicas))

    bench.edit = edit


def learnt(bench: Bench) -> float:
    return bench.state.tiers["fast"].measurements.prefill.value


def test_the_speeds_of_another_model_are_forgotten_at_once() -> None:
    bench = Bench(replicas=4, rate=10.0, running=4)
    speeds_of(bench, 1, 1.0)
    bench.run(120)
    assert learnt(bench) == pytest.approx(PREFILL)
    speeds_of(bench, 2, 0.2)
    bench.run(3)
    assert learnt(bench) == pytest.approx(0.2 * PREFILL)


def test_while_two_models_run_the_speeds_are_those_of_the_more_frequent_one() -> None:
    bench = Bench(replicas=4, rate=10.0, running=4, frozen=True)
    speeds_of(bench, 1, 1.0)
    bench.run(60)

    def mixed(newer: int) -> Callable[[float, TierSnapshot], TierSnapshot]:
        def edit(at_s: float, tier: TierSnapshot) -> TierSnapshot:
            replicas = [
                replace(each, sample=replace(each.sample, model=2 if place < newer else 1, prefill_tokens_per_s=speed))
                for place, each in enumerate(tier.replicas)
                if each.sample is not None
                for speed in [0.2 * PREFILL if place < newer else PREFILL]
            ]
            return replace(tier, replicas=tuple(replicas))

        return edit

    found = []
    for newer in range(5):
        bench.edit = mixed(newer)
        bench.run(2)
        found.append(learnt(bench) / PREFILL)
    assert found == pytest.approx([1.0, 1.0, 1.0, 0.2, 0.2])


@pytest.mark.parametrize("interval_s", [0.5, 1.0, 4.0])
def test_a_minute_teaches_as_much_whatever_the_control_interval_is(interval_s: float) -> None:
    """A measurement comes with each decision."""
    measured, slowness = ReplicaMeasurements(), 1.0
    for speed, step_s in [(5000.0, 0.02), *[(6000.0, 0.024)] * round(60 / interval_s)]:
        measured = measured.with_prefill(speed, interval_s).with_step(8, step_s, interval_s)
        slowness = learnt_slowness(slowness, 1.5 if speed == 6000.0 else None, interval_s)
    assert measured.prefill.value == pytest.approx(6000 - 1000 * 0.95**60)
    assert measured.model().step_s == pytest.approx(0.024 - 0.004 * 0.95**60)
    assert slowness == pytest.approx(1.5 - 0.5 * 0.97**60)


def test_a_policy_that_decides_twice_a_second_learns_no_faster() -> None:
    found = []
    for interval_s in (0.5, 1.0):
        bench = Bench(
            config=config_of().model_copy(update={"interval_s": interval_s}), replicas=4, rate=10.0, running=4
        )
        speeds_of(bench, 0, 1.0)
        bench.run(60)
        speeds_of(bench, 0, 1.3)
        for _ in range(round(20 / interval_s)):
            bench.tick()
            bench.at_s += interval_s - 1.0  # a tick of the bench is a second
        found.append(learnt(bench))
    assert found[0] == pytest.approx(found[1], rel=1e-3)
