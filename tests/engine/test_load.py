"""What an engine says of its load, by which replicas are scaled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine import GenerationRequest, SamplingParams
from engine.api import LATENCY_BOUNDS_S, DueWork, OverloadedError, Priority, TtftObjective
from engine.load import StepTimes, demand, due_work
from engine.scheduler.step_plan import Load
from tests.engine.conftest import MakeEngine
from tests.engine.sequences import sequence

PARAMS = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)


def test_steps_without_prefill_are_averaged_with_their_batches() -> None:
    times = StepTimes()
    times.observe(Load(decodes=2), 0.02, 1.0)
    times.observe(Load(decodes=6), 0.04, 1.0)
    assert times.decode_step_s == pytest.approx(0.03)
    assert times.decode_batch == 4
    assert (times.prefill_tokens_per_s, times.chunk_tokens) == (0, 0)


def test_decodes_beside_a_prompt_do_not_slow_the_prefill_rate() -> None:
    times = StepTimes()
    times.observe(Load(decodes=4), 0.02, 1.0)
    times.observe(Load(decodes=4, long=100), 0.12, 1.0)
    assert times.prefill_tokens_per_s == pytest.approx(1000)
    assert times.chunk_tokens == 100


def test_recent_steps_count_more_and_the_last_ones_are_not_forgotten() -> None:
    times = StepTimes()
    times.observe(Load(short=100), 1.0, 0.0)
    times.observe(Load(short=100), 0.1, 100.0)
    assert 800 < times.prefill_tokens_per_s < 1000
    times.observe(Load(decodes=1), 0.01, 10_000.0)
    assert times.prefill_tokens_per_s > 800


def test_demand_counts_what_is_not_computed_and_expects_the_usual_answers() -> None:
    running, waiting, batch = (sequence(name, [7] * length, 30) for name, length in (("a", 100), ("b", 50), ("c", 10)))
    running.computed = 60
    batch.priority = Priority.BATCH
    found = demand([running], [waiting, batch], uncached=0.5, output=20.0)
    assert found.queued_prompt_tokens == 40 + 0.5 * 60
    assert found.kv_demand_tokens == 160 + 3 * 20
    assert (found.batch_prompt_tokens, found.batch_sequences, found.batch_kv_tokens) == (5, 1, 30)
    assert demand([running], [], 1.0).kv_demand_tokens == 100 + 30  # no answer is known: the most that may come


def test_batch_work_that_is_due_is_summed_by_the_time_that_is_left() -> None:
    soon, sooner, later, begun, free, user = (sequence(str(name), [7] * 100, 30) for name in range(6))
    for each, deadline in ((soon, 1050.0), (sooner, 1020.0), (later, 9000.0), (begun, 1050.0), (user, 1050.0)):
        each.deadline = deadline
    for each in (soon, sooner, later, begun, free):
        each.priority = Priority.BATCH
    soon.computed = 60
    begun.tokens.append(7)
    found = due_work([soon, begun], [sooner, later, free, user], uncached=0.5, output=20.0, now=1000.0)
    assert found == (DueWork(20.0, 40 + 0.5 * 100, 2 * 20.0, 50.0), DueWork(8000.0, 50.0, 20.0, 8000.0))


def test_batch_work_that_is_late_does_not_make_the_rest_late() -> None:
    late, in_time = (sequence(name, [7] * 100, 30) for name in ("late", "in time"))
    for each, deadline in ((late, 999.0), (in_time, 1030.0)):
        each.priority, each.deadline = Priority.BATCH, deadline
    assert due_work([], [late, in_time], uncached=1.0, output=20.0, now=1000.0) == (DueWork(30.0, 100.0, 20.0, 30.0),)


def test_a_deadline_of_batch_work_is_in_the_load_of_an_engine(make_engine: MakeEngine) -> None:
    engine = make_engine()
    request = GenerationRequest("a", (1, 2, 3), PARAMS, priority=Priority.BATCH, deadline_s=600.0)
    engine.add(request)
    (due,) = engine.load().batch_due
    assert 590.0 < due.left_s <= 600.0
    assert (due.prompt_tokens, due.output_tokens) == (3.0, 5.0)


def test_an_engine_counts_arrivals_refusals_and_answers_by_class(make_engine: MakeEngine) -> None:
    engine = make_engine(max_waiting=2)
    for name, priority in (("a", Priority.INTERACTIVE), ("b", Priority.STANDARD)):
        engine.add(GenerationRequest(name, (1, 2, 3), PARAMS, priority=priority))
    with pytest.raises(OverloadedError):
        engine.add(GenerationRequest("c", (1, 2, 3), PARAMS))
    before = engine.load()
    assert (before.waiting, before.queued_prompt_tokens, before.kv_demand_tokens) == (2, 6, 2 * (3 + 5))
    engine.step()
    engine.abort(["a"])
    while engine.has_work:
        engine.step()
    after = engine.load()

    standard, interactive = after.classes[Priority.STANDARD], after.classes[Priority.INTERACTIVE]
    assert (standard.arrivals, standard.refusals, standard.prompt_tokens) == (2, 1, 3)
    assert (standard.finished, standard.output_tokens) == (1, 5)
    assert (interactive.arrivals, interactive.finished) == (1, 1)
    assert sum(standard.ttft) == 1
    assert sum(after.itl) >= 4
    assert len(after.itl) == len(LATENCY_BOUNDS_S) + 1
    assert (after.running, after.waiting, after.queued_prompt_tokens, after.kv_demand_tokens) == (0, 0, 0, 0)
    assert after.kv_capacity_tokens > 0
    assert min(after.prefill_tokens_per_s, after.decode_step_s, after.decode_batch, after.chunk_tokens) > 0


def test_prompt_tokens_to_be_computed_are_counted_by_class_and_length(make_engine: MakeEngine) -> None:
    engine = make_engine(prefill_chunk=8, max_batch_tokens=16, max_sequences=8)
    lengths = {Priority.INTERACTIVE: 4, Priority.STANDARD: 30, Priority.BATCH: 4}
    for priority, length in lengths.items():
        engine.add(GenerationRequest(priority.name, tuple(range(1, length + 1)), PARAMS, priority=priority))
    stats = engine.stats()
    assert (stats.queued_short, stats.queued_long, stats.decoding) == ((4, 0, 4), (0, 30, 0), 0)
    engine.step()
    stats = engine.stats()
    assert (sum(stats.queued_short), stats.queued_long[0], stats.queued_long[2]) == (0, 0, 0)
    assert 0 < stats.queued_long[1] < 30  # in prefill
    assert stats.long_prompts == 1
    assert stats.decoding == 2
    while engine.has_work:
        engine.step()
    stats = engine.stats()
    assert (stats.queued_short, stats.queued_long, stats.decoding) == ((0, 0, 0), (0, 0, 0), 0)
    assert stats.long_prompts == 0


def test_what_the_prefix_cache_has_is_not_queued(make_engine: MakeEngine) -> None:
    engine = make_engine(block_size=4)
    prompt = tuple(range(1, 25))
    engine.add(GenerationRequest("a", prompt, PARAMS))
    while engine.has_work:
        engine.step()
    engine.add(GenerationRequest("b", (*prompt, 7, 8, 9), PARAMS))
    assert 0 < sum(engine.stats().queued_short) <= 7
    engine.abort(["b"])
    assert engine.stats().queued_short == (0, 0, 0)


def test_an_engine_reports_what_its_steps_cost_and_may_hold(make_engine: MakeEngine) -> None:
    engine = make_engine()
    for number in range(4):
        engine.add(GenerationRequest(f"{number}", (1,) * (3 + 5 * number), PARAMS))
        while engine.has_work:
            engine.step()
    load = engine.load()
    assert load.step_s + load.prompt_token_s > 0
    assert min(load.step_s, load.prompt_token_s, load.sequence_s) >= 0
    assert (load.step_tokens, load.prefill_chunk) == (engine.config.max_batch_tokens, engine.config.prefill_chunk)
    assert (load.max_sequences, load.output_tokens) == (engine.config.max_sequences, 5)
    assert 0 < load.long_beside_decodes <= load.long_step_tokens <= load.step_tokens


def test_a_request_that_another_replica_had_before_is_no_arrival(make_engine: MakeEngine) -> None:
    engine = make_engine(max_waiting=3)
    first = GenerationRequest("first", (1, 2, 3), PARAMS)
    for request in (first, replace(first, request_id="b", resume=(7,)), replace(first, request_id="c", attempt=1)):
        engine.add(request)
    for request in (replace(first, request_id="d", attempt=2), replace(first, request_id="e")):
        with pytest.raises(OverloadedError):
            engine.add(request)
    found = engine.load().classes[Priority.STANDARD]
    assert (found.arrivals, found.refusals, found.prompt_tokens) == (2, 1, 3)
    assert engine.metrics().refused == 2


def test_an_engine_counts_a_late_request_once_whatever_its_choices_and_not_one_from_another_replica(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine()
    engine.recorder.objectives = {Priority.STANDARD: TtftObjective(1e-9)}
    several = replace(PARAMS, n=2, temperature=1.0)
    first = GenerationRequest("first", (1, 2, 3), several)
    for request in (first, GenerationRequest("b", (1, 2, 3), PARAMS, resume=(7,)), replace(first, request_id="c")):
        engine.add(request)
    while engine.has_work:
        engine.step()
    engine.add(GenerationRequest("d", (1, 2, 3), PARAMS))
    engine.abort(["d"])
    assert engine.load().classes[Priority.STANDARD].late == 3
