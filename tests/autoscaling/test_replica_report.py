"""What replicas report: numbers by name, and windows of latencies."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import pytest

from cluster.autoscaling.latency_window import LatencyWindow
from cluster.autoscaling.replica_model import ReplicaModel
from cluster.autoscaling.replica_report import BUCKETS, WindowedLatencies, from_numbers, to_numbers
from cluster.autoscaling.snapshot import ClassCounters
from engine.api import LATENCY_BOUNDS_S, ClassLoad, EngineLoad, Priority
from engine.load import StepTimes
from engine.scheduler.step_plan import Load
from engine.step_cost import StepCostFit


def buckets(**at: int) -> tuple[int, ...]:
    """Counts with ``at`` those buckets, such as ``b3=5``."""
    return tuple(at.get(f"b{place}", 0) for place in range(BUCKETS))


LOAD = EngineLoad(
    running=3,
    waiting=2,
    queued_prompt_tokens=700.5,
    kv_demand_tokens=9000,
    kv_capacity_tokens=20_000,
    prefill_tokens_per_s=5000.0,
    decode_step_s=0.02,
    decode_batch=2.5,
    batch_sequences=1,
    classes={Priority.STANDARD: ClassLoad(10, 1, 2000.7, 6, 300, buckets(b9=4))},
    itl=buckets(b4=50),
)


def test_a_report_arrives_as_it_was_sent() -> None:
    window = WindowedLatencies(
        12.0, {Priority.STANDARD: buckets(b9=4), Priority.INTERACTIVE: buckets()}, buckets(b4=50)
    )
    numbers = to_numbers(LOAD, window, 7.5)
    assert all(type(value) is float for value in numbers.values())  # Serve takes nothing else
    report = from_numbers(numbers)

    assert report is not None
    assert report.sample.running_requests == 3
    assert report.sample.batch_requests == 1
    assert report.sample.queued_prompt_tokens == 700.5
    assert report.sample.decode_batch == 2.5
    assert report.counters[Priority.STANDARD] == ClassCounters(10, 1, 2000.0, 6, 300.0)
    assert report.counters[Priority.BATCH] == ClassCounters()
    assert report.latencies == window
    assert report.start_s == 7.5


def test_late_requests_are_counted_by_class_where_the_engine_counts_them() -> None:
    late = replace(LOAD, classes={Priority.STANDARD: ClassLoad(10, late=3), Priority.INTERACTIVE: ClassLoad(5, late=0)})
    found, earlier = (from_numbers(to_numbers(load, WindowedLatencies(), 0.0)) for load in (late, LOAD))
    assert found is not None
    assert earlier is not None
    assert [found.counters[each].late for each in (Priority.STANDARD, Priority.INTERACTIVE)] == [3, 0]
    assert all(each.counts_late for each in found.latency_reports("r1", 0.0))
    assert earlier.counters[Priority.STANDARD].late == 0
    assert not any(each.counts_late for each in earlier.latency_reports("r1", 0.0))


def test_a_report_of_an_earlier_release_counts_no_late_requests_and_is_read() -> None:
    numbers = to_numbers(replace(LOAD, classes={Priority.STANDARD: ClassLoad(10, late=3)}), WindowedLatencies(), 0.0)
    del numbers["counts_late"], numbers["standard.late"]
    report = from_numbers(numbers)
    assert report is not None
    assert (report.counts_late, report.counters[Priority.STANDARD]) == (False, ClassCounters(10))


def test_latencies_are_histograms_by_class_and_those_between_tokens_are_with_the_standard_class() -> None:
    report = from_numbers(to_numbers(LOAD, WindowedLatencies(30.0, {Priority.STANDARD: buckets(b9=4)}, LOAD.itl), 0.0))
    assert report is not None
    by_class = {each.priority: each for each in report.latency_reports("r1", 100.0)}
    assert set(by_class) == {Priority.INTERACTIVE, Priority.STANDARD}
    assert by_class[Priority.STANDARD].ttft.quantile(0.99) <= LATENCY_BOUNDS_S[9]
    assert (by_class[Priority.STANDARD].itl.total, by_class[Priority.INTERACTIVE].itl.total) == (50, 0)
    assert all(each.observed_at_s == 100.0 and each.ttft.valid and each.itl.valid for each in by_class.values())


@pytest.mark.parametrize("name", ["running", "kv_capacity_tokens", "window_s"])
def test_a_report_that_lacks_a_number_is_not_read(name: str) -> None:
    numbers = to_numbers(LOAD, WindowedLatencies(), 0.0)
    assert from_numbers({**numbers, "of another release": 1.0}) is not None
    del numbers[name]
    assert from_numbers(numbers) is None


@pytest.mark.parametrize("name", ["running", "standard.arrivals", "itl.3"])
def test_a_report_with_a_number_that_is_none_is_not_read(name: str) -> None:
    assert from_numbers({**to_numbers(LOAD, WindowedLatencies(), 0.0), name: nan}) is None


def test_counts_of_zero_do_not_travel() -> None:
    assert len(to_numbers(EngineLoad(), WindowedLatencies(), 0.0)) == 18


def test_a_window_forgets_latencies_after_half_a_minute() -> None:
    window = LatencyWindow(0.0)
    first = EngineLoad(itl=buckets(b2=10), itl_s=0.04)
    assert window.latencies(first, 1.0) == WindowedLatencies(
        1.0, {Priority.INTERACTIVE: buckets(), Priority.STANDARD: buckets()}, buckets(b2=10), 0.04
    )
    later = EngineLoad(itl=buckets(b2=10, b5=1), itl_s=0.09)
    for second in range(2, 31):
        found = window.latencies(later, float(second))
        assert (found.itl, found.itl_s) == (buckets(b2=10, b5=1), 0.09)
    for second in range(31, 60):
        found = window.latencies(later, float(second))
    assert (found.itl, found.itl_s) == (buckets(), 0.0)
    assert found.window_s == 30.0


def test_latencies_by_other_bounds_are_left_out_and_the_rest_is_read() -> None:
    """A replica of another release may count by other bounds: its third bucket is not ours."""
    window = WindowedLatencies(12.0, {Priority.STANDARD: buckets(b9=4)}, buckets(b4=50))
    numbers = to_numbers(LOAD, window, 7.5)
    for foreign in ({**numbers, "bounds": 1.0}, {name: value for name, value in numbers.items() if name != "bounds"}):
        report = from_numbers(foreign)
        assert report is not None
        assert (sum(report.latencies.itl), report.sample.running_requests) == (0, 3)
        assert not any(map(sum, report.latencies.ttft.values()))


def test_the_model_and_the_age_of_a_report_come_along() -> None:
    sent = to_numbers(replace(LOAD, age_s=2.5), WindowedLatencies(), 0.0, "0123456789abcdef")
    report = from_numbers(sent)
    assert report is not None
    assert (report.sample.model, report.age_s) == (0x0123456789AB, 2.5)
    assert from_numbers({name: sent[name] for name in sent if name not in ("model", "age_s")}) is not None


def test_the_prefill_rate_is_that_of_a_full_chunk_with_its_weights_whatever_chunks_were_measured() -> None:
    """Beside decodes an engine computes chunks of some tokens, and leaves the weights out of their time."""
    load = replace(LOAD, prefill_tokens_per_s=2400.0, chunk_tokens=60.0, prefill_chunk=512)
    load = replace(load, step_s=0.025, prompt_token_s=0.6e-3, free_prompt_tokens=40)
    report = from_numbers(to_numbers(load, WindowedLatencies(), 0.0))
    assert report is not None
    assert report.sample.prefill_tokens_per_s == pytest.approx(512 / (0.025 + 0.6e-3 * 472))
    assert report.sample.chunk_tokens == 512


def test_an_engine_without_a_fit_reports_what_it_has_measured() -> None:
    load = replace(LOAD, chunk_tokens=60.0, prefill_chunk=512, step_s=0.025)
    report = from_numbers(to_numbers(load, WindowedLatencies(), 0.0))
    assert report is not None
    assert (report.sample.prefill_tokens_per_s, report.sample.chunk_tokens) == (5000.0, 60.0)


@pytest.mark.parametrize("chunk", [64, 512])
@pytest.mark.parametrize("decodes", [1, 12])
def test_a_prompt_costs_what_its_steps_take_more_than_those_of_decodes(chunk: int, decodes: int) -> None:
    """From an engine's steps to the autoscaler's model of a replica. A prompt token takes 0.6 ms."""
    times, fit, at_s = StepTimes(), StepCostFit(), 0.0
    for number in range(400):
        step = Load(decodes=decodes + number % 3, long=chunk // (1 + number % 4) if number % 2 else 0)
        seconds = 0.025 + 0.6e-3 * step.long + 1e-3 * step.decodes
        at_s += seconds
        times.observe(step, seconds, at_s)
        fit.observe(step, seconds, at_s)
    cost = fit.solve()
    load = EngineLoad(
        prefill_tokens_per_s=times.prefill_tokens_per_s,
        chunk_tokens=times.chunk_tokens,
        step_s=cost.step_s,
        prompt_token_s=cost.prompt_token_s,
        prefill_chunk=512,
    )
    report = from_numbers(to_numbers(load, WindowedLatencies(), 0.0))
    assert report is not None
    sample = report.sample
    model = ReplicaModel(sample.prefill_tokens_per_s, 0.025, chunk_tokens=sample.chunk_tokens)
    assert model.work_s(1000, 0) == pytest.approx(0.6, rel=0.02)
