"""What an engine tells of itself, and that it adds up."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import GenerationRequest, SamplingParams
from engine.api import EngineStats, Priority, TtftObjective
from engine.metrics import OTHERS, SECONDS, Histogram, Phase, Recorder, extra_buckets
from tests.engine.conftest import MakeEngine
from tests.engine.sequences import sequence

STATS = EngineStats(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
PARAMS = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)


def test_histograms_count_by_bucket_and_add_up() -> None:
    one, other = Histogram((1.0, 2.0)), Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        one.observe(value)
    other.observe(1.5, times=3)
    both = one.merged(other)

    assert both.counts == [2, 4, 1]
    assert (both.count, both.total) == (7, 16.5)
    assert (both.quantile(0.25), both.quantile(0.5), both.quantile(1.0)) == (1.0, 2.0, float("inf"))
    assert Histogram((1.0,)).quantile(0.5) == 0.0
    with pytest.raises(ValueError, match="buckets"):
        one.merged(Histogram((3.0,)))


@given(st.sets(st.floats(0.0001, 200.0), max_size=8), st.lists(st.floats(0.0, 300.0), max_size=30))
def test_counts_are_the_same_whether_further_buckets_are_folded_or_were_never_there(
    further: set[float], values: list[float]
) -> None:
    fine, plain = Histogram(tuple(sorted({*SECONDS, *further}))), Histogram(SECONDS)
    for value in values:
        fine.observe(value)
        plain.observe(value)
    extra = extra_buckets(fine.bounds, SECONDS)
    assert len(extra) == len(fine.bounds) - len(SECONDS)
    assert fine.folded(extra) == fine.counted_by(SECONDS) == tuple(plain.counts) == plain.folded(())


OBJECTIVES = {Priority.STANDARD: TtftObjective(2.0, 1.0), Priority.INTERACTIVE: TtftObjective(0.5)}


@pytest.mark.parametrize(
    ("ttft_s", "cached", "fields", "late"),
    [
        pytest.param(2.1, 0, {}, 0, id="a long prompt is allowed more"),
        pytest.param(6.1, 0, {}, 1, id="later than that"),
        pytest.param(2.1, 4_000, {}, 1, id="not if it was cached"),
        pytest.param(0.6, 0, {"priority": Priority.INTERACTIVE}, 1, id="by its class"),
        pytest.param(99.0, 0, {"priority": Priority.BATCH}, 0, id="a class without objective"),
        pytest.param(99.0, 0, {"continues": True}, 0, id="another replica has counted it"),
        pytest.param(99.0, 0, {"choice": 1}, 0, id="its first choice is counted"),
    ],
)
def test_first_tokens_are_late_by_the_objective_of_their_own_prompt(
    ttft_s: float, cached: int, fields: dict[str, Any], late: int
) -> None:
    recorder = Recorder()
    recorder.objectives = OBJECTIVES
    one = sequence("a", [1] * 4_000, arrived=100.0)
    one = replace(one, cached_tokens=cached, **fields)
    recorder.tokens_emitted([one], 100.0 + ttft_s)
    recorder.tokens_emitted([one], 200.0)
    recorder.broken(one, 300.0)
    assert sum(each.late or 0 for each in recorder.class_loads().values()) == late


def test_a_request_that_ends_without_a_token_is_late_if_its_time_has_passed() -> None:
    recorder = Recorder()
    recorder.objectives = OBJECTIVES
    for waited_s in (1.0, 2.5, 30.0):
        recorder.broken(sequence("a", [1], arrived=100.0), 100.0 + waited_s)
    assert recorder.class_loads()[Priority.STANDARD].late == 2


def test_objectives_may_change_and_without_one_nothing_is_counted() -> None:
    recorder = Recorder()
    assert {each.late for each in recorder.class_loads().values()} == {None}
    for objective_s, late in ((2.0, 1), (5.0, 1), (1.0, 2)):
        recorder.objectives = {Priority.STANDARD: TtftObjective(objective_s)}
        recorder.tokens_emitted([sequence("a", [1], arrived=100.0)], 103.0)
        loads = recorder.class_loads()
        assert (loads[Priority.STANDARD].late, loads[Priority.INTERACTIVE].late) == (late, None)


def test_a_bucket_ends_at_each_objective_and_the_load_is_counted_by_the_usual_ones() -> None:
    recorder = Recorder(objectives_s=(3.0, 0.15))
    for seconds in (2.75, 3.0, 3.25):
        recorder.tokens_emitted([sequence("a", [1], arrived=100.0)], 100.0 + seconds)
    found = recorder.snapshot(STATS, {}).first_token_s[Priority.STANDARD]
    up_to = dict(zip(found.bounds, accumulate(found.counts), strict=False))
    assert (up_to[2.5], up_to[3.0], up_to[5.0]) == (0, 2, 3)
    assert 0.15 in recorder.snapshot(STATS, {}).between_tokens_s.bounds
    usual = recorder.class_loads()[Priority.STANDARD].ttft
    assert len(usual) == len(recorder.itl) == len(SECONDS) + 1
    assert usual[SECONDS.index(5.0)] == 3


def test_every_token_is_in_a_histogram(make_engine: MakeEngine) -> None:
    engine = make_engine()
    for name, priority in (("a", Priority.INTERACTIVE), ("b", Priority.BATCH), ("c", Priority.BATCH)):
        engine.add(GenerationRequest(name, (1, 2, 3), PARAMS, tenant=name, priority=priority))
        engine.step()
    engine.add(GenerationRequest("waits", (1, 2), PARAMS, tenant="c"))
    assert engine.metrics().waiting[Priority.STANDARD] == 1
    assert engine.metrics().tenants["c"].waiting == 1
    engine.abort(["waits"])
    while engine.has_work:
        engine.step()
    found = engine.metrics()

    assert {each: found.first_token_s[each].count for each in Priority} == {-1: 1, 0: 0, 1: 2}
    assert {each: found.queue_s[each].count for each in Priority} == {-1: 1, 0: 0, 1: 2}
    assert found.between_tokens_s.count == 3 * (5 - 1)
    of_each_step = dict.fromkeys(Phase, found.stats.steps) | {Phase.DRAFT: 0}  # nobody guesses here
    assert {phase: found.phase_s[phase].count for phase in Phase} == of_each_step
    assert [(found.tenants[name].prompt_tokens, found.tenants[name].generated_tokens) for name in "ab"] == [(3, 5)] * 2
    assert sum(use.finished for use in found.tenants.values()) == 3
    assert found.step_s.count == found.batch_sequences.count == found.stats.steps
    assert (found.prompt_length.count, found.prompt_length.total) == (3, 9)  # the one that was aborted never ran
    assert (found.answer_length.count, found.answer_length.total) == (4, 15)


def test_the_oldest_waiting_request_of_each_class_is_that_which_has_waited_longest(make_engine: MakeEngine) -> None:
    """A preempted request has waited again, but the time in which it ran does not count."""
    engine = make_engine(max_sequences=1, kv_cache_tokens=256)
    instant = engine.now()
    engine._clock = lambda: instant
    engine.add(GenerationRequest("runs", (1, 2, 3), PARAMS))
    engine.step()
    for name, priority, after_s in (("a", Priority.STANDARD, 3), ("b", Priority.STANDARD, 2), ("c", Priority.BATCH, 5)):
        instant += after_s
        engine.add(GenerationRequest(name, (1, 2), PARAMS, priority=priority))
    instant += 1
    assert engine.metrics().oldest_wait_s == {Priority.INTERACTIVE: 0, Priority.STANDARD: 8, Priority.BATCH: 1}
    engine.abort(["a"])
    assert engine.metrics().oldest_wait_s[Priority.STANDARD] == 6
    engine.abort(["runs", "b", "c"])
    assert set(engine.metrics().oldest_wait_s.values()) == {0}


def test_the_oldest_request_of_two_engines_is_the_older_one() -> None:
    one, other = (Recorder().snapshot(STATS, {}, dict.fromkeys(Priority, wait_s)) for wait_s in (3.0, 7.0))
    assert set(one.merged(other).oldest_wait_s.values()) == {7.0}


def test_metrics_of_engines_add_up(make_engine: MakeEngine) -> None:
    engines = [make_engine(), make_engine()]
    for n, engine in enumerate(engines):
        engine.add(GenerationRequest("a", (1, 2, 3), PARAMS, tenant=f"t{n}"))
        while engine.has_work:
            engine.step()
    both = engines[0].metrics().merged(engines[1].metrics())

    assert (both.stats.generated_tokens, both.stats.finished) == (10, 2)
    assert both.between_tokens_s.count == 8
    assert (both.answer_length.total, both.prompt_length.total) == (10, 6)
    assert both.step_s.count == both.batch_sequences.count == both.stats.steps
    assert sorted(both.tenants) == ["t0", "t1"]
    assert list(both.kernels.values()) == [2]


def test_tenants_are_told_apart_up_to_a_bound() -> None:
    recorder = Recorder(["named"], tenants=3)
    for name in ("a", "b", "c", "named", "(x)"):
        recorder.ended(sequence(name, [1], tenant=name), 0, finished=True)
    found = recorder.snapshot(None, {(Priority.BATCH, "d"): 4})  # type: ignore[arg-type]

    assert {name: use.finished for name, use in found.tenants.items()} == {"named": 1, "a": 1, "b": 1, OTHERS: 2}
    assert found.tenants[OTHERS].waiting == 4
