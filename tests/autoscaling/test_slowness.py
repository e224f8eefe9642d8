"""How fast replicas are by what came out of them, whatever they report."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.autoscaling.arrival_rate import ArrivalRate
from cluster.autoscaling.histogram import LatencyHistogram
from cluster.autoscaling.latency_window import LatencyWindow
from cluster.autoscaling.replica_model import ReplicaModel
from cluster.autoscaling.replica_report import WINDOW_S, WindowedLatencies, from_numbers, to_numbers
from cluster.autoscaling.slowness import MAX_SLOWNESS, disturbed_at, learnt_slowness, mean_itl_s, measured_slowness
from cluster.autoscaling.snapshot import LatencyReport
from cluster.autoscaling.tier_load import TierLoad
from engine.api import LATENCY_BOUNDS_S, EngineLoad, Priority
from engine.metrics import Histogram

MODEL = ReplicaModel(prefill_tokens_per_s=10_000, step_s=0.02, request_s=0.0002, chunk_tokens=512)
LOAD = TierLoad(ready=4, fresh=4)


def flow_at(busy: float) -> ArrivalRate:
    """The flow that takes the part ``busy`` of the time of LOAD's replicas, if these are as fast as MODEL."""
    rate = busy * LOAD.ready / MODEL.work_s(1000, 200)
    return ArrivalRate(rate, 1000, 200, served=rate)


@given(st.floats(1.0, 2.0), st.floats(0.05, 0.45), st.floats(0.5, 3.0))
@settings(deadline=None)
def test_a_replica_that_reports_more_than_its_speed_is_known_by_its_latencies(
    factor: float, busy: float, scale: float
) -> None:
    model = replace(MODEL.slower(scale), chunk_tokens=MODEL.chunk_tokens)
    flow = replace(flow_at(busy), served=flow_at(busy).served / scale)
    itl_s = factor * model.step_s / (1 - factor * busy)  # of replicas that take ``factor`` times as long

    assert measured_slowness(model, flow, LOAD, itl_s, WINDOW_S) == pytest.approx(factor, rel=1e-6)


@given(st.floats(1e-4, 100.0), st.floats(0.0, 1e4), st.integers(1, 1000))
def test_it_is_bounded_and_never_a_reason_for_fewer_replicas(itl_s: float, served: float, ready: int) -> None:
    found = measured_slowness(MODEL, replace(flow_at(0.3), served=served), replace(LOAD, ready=ready), itl_s, WINDOW_S)

    assert found is None or 1.0 <= found <= MAX_SLOWNESS
    assert 1.0 <= learnt_slowness(1.0, found) <= MAX_SLOWNESS
    assert found is None or MODEL.slower(found).replicas(flow_at(0.3), 0.09) >= MODEL.replicas(flow_at(0.3), 0.09)


@pytest.mark.parametrize("load", [replace(LOAD, newcomers=1), TierLoad()])
def test_nothing_is_learnt_while_it_cannot_be_told(load: TierLoad) -> None:
    assert measured_slowness(MODEL, flow_at(0.3), LOAD, 0.2, WINDOW_S) is not None
    assert measured_slowness(MODEL, flow_at(0.3), load, 0.2, WINDOW_S) is None
    assert measured_slowness(MODEL, None, LOAD, 0.2, WINDOW_S) is None
    assert measured_slowness(MODEL, flow_at(0.3), LOAD, None, WINDOW_S) is None
    assert measured_slowness(MODEL, flow_at(0.3), LOAD, 0.2, WINDOW_S - 1) is None
    assert learnt_slowness(1.4, None) == 1.4


@pytest.mark.parametrize("load", [replace(LOAD, draining=1), replace(LOAD, batch_in_flight=3.0)])
def test_latencies_of_batch_work_and_of_replicas_that_drain_are_those_of_the_flow_a_window_later(
    load: TierLoad,
) -> None:
    assert disturbed_at(None, LOAD, 100.0) == 100.0
    assert disturbed_at(40.0, load, 100.0) == 100.0
    assert disturbed_at(40.0, LOAD, 100.0) == 40.0


@given(st.floats(0.002, 0.3), st.floats(0.05, 0.45))
@settings(deadline=None)
def test_replicas_that_report_their_true_speed_are_believed_whatever_bucket_their_latencies_are_in(
    step_s: float, busy: float
) -> None:
    model = replace(MODEL.slower(step_s / MODEL.step_s), chunk_tokens=MODEL.chunk_tokens)
    rate = busy * LOAD.ready / model.work_s(1000, 200)
    window, engine = LatencyWindow(0.0), Histogram(LATENCY_BOUNDS_S)
    engine.observe(step_s / (1 - busy), 100)
    latencies = window.latencies(EngineLoad(itl=tuple(engine.counts), itl_s=engine.total), 10.0)
    report = from_numbers(to_numbers(EngineLoad(), latencies, 1.0))
    assert report is not None

    itl_s = mean_itl_s(report.latency_reports("one", 100.0), 101.0, 5.0, 50)

    flow = ArrivalRate(rate, 1000, 200, served=rate)
    assert measured_slowness(model, flow, LOAD, itl_s, WINDOW_S) == pytest.approx(1.0, rel=1e-6)


def test_a_release_that_does_not_report_the_sum_of_latencies_teaches_nothing() -> None:
    numbers = to_numbers(EngineLoad(), WindowedLatencies(10.0, itl=(100, *(0,) * len(LATENCY_BOUNDS_S))), 1.0)
    report = from_numbers(numbers)
    assert report is not None

    assert mean_itl_s(report.latency_reports("one", 100.0), 101.0, 5.0, 50) is None


def test_the_mean_latency_is_that_of_fresh_reports_on_waited_for_classes() -> None:
    def report(priority: Priority, itl_s: float, at_s: float = 100.0) -> LatencyReport:
        return LatencyReport("one", priority, at_s, LatencyHistogram.of([]), LatencyHistogram.of([itl_s] * 60))

    reports = [report(Priority.STANDARD, 0.045), report(Priority.BATCH, 3.5), report(Priority.STANDARD, 3.5, 10.0)]

    assert mean_itl_s(reports, 101.0, 5.0, 50) == pytest.approx(0.045)
    assert mean_itl_s(reports, 101.0, 5.0, 61) is None
    assert mean_itl_s((), 101.0, 5.0, 1) is None
