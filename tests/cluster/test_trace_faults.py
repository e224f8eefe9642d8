"""A fault of tracing itself costs the trace in which it is, which is counted, and nothing else."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import pytest

from cluster.telemetry import otel_tracer, replica_tracer, trace_sampling
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.log_lines import complete
from cluster.telemetry.otel_tracer import OtelTracer
from cluster.telemetry.replica_tracer import ReplicaTracer
from cluster.telemetry.trace_record import TraceRecord
from engine import AsyncEngine
from engine.api import Delta, FinishReason, GenerationRequest, OverloadedError, StepFacts, Usage
from router.ports.trace_names import Attribute, EventName, SpanName
from router.ports.tracer import Value
from tests.cluster.otlp_receiver import http_receiver
from tests.cluster.ray_metrics import RecordedMetrics, record
from tests.cluster.traced_service import CALLER, OUT, PARENT, TRACE, service, text_of

FAULTS = "ray_manta_trace_faults_total"
ODD = "quokkamarker"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedMetrics:
    return record(monkeypatch)


def traced(number: int) -> GenerationRequest:
    return GenerationRequest(f"r{number}", "hi", trace_context=f"00-{TRACE}-{CALLER}-01")


def last(number: int) -> Delta:
    return Delta(f"r{number}", (1,), "a", FinishReason.STOP, Usage(1, 1, 0), waited_s=0.0)


def test_a_trace_that_cannot_be_encoded_is_lost_alone_and_counted_and_the_first_is_logged(
    recorded: RecordedMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    with http_receiver() as received:
        tracer = OtelTracer(TelemetryConfig(endpoint=received.endpoint, sample_ratio=1.0), "manta")
        for name in ("before", "odd", "between", "odd", "after"):
            with tracer.request(None) as trace:
                trace.enter(SpanName.ACCESS)
                trace.describe({Attribute.OPERATION: name, Attribute.REQUEST_MODEL: ODD})
                if name == "odd":
                    trace._root.started_ns = -1  # type: ignore[attr-defined]
        tracer.close()
    roots = [span.name for span in received.spans if span.name != "access"]
    assert roots == [f"{name} {ODD}" for name in ("before", "between", "after")]
    assert recorded.value(FAULTS, role="router") == 2
    assert recorded.applications[FAULTS] == "manta"
    (logged,) = [each for each in caplog.records if "a trace is lost" in each.message]
    complete(logged, {})
    assert ODD not in logging.Formatter().format(logged)


def test_the_log_quotes_nothing_of_a_request(recorded: RecordedMetrics, caplog: pytest.LogCaptureFixture) -> None:
    def quotes() -> dict[Attribute, Value]:
        raise ValueError(ODD)

    tracer = OtelTracer(TelemetryConfig(endpoint="http://127.0.0.1:9/v1/traces", sample_ratio=1.0))
    with tracer.request(None) as trace:
        trace.event(EventName.CACHE, quotes)
    tracer.close()
    (logged,) = [each for each in caplog.records if "a trace is lost" in each.message]
    complete(logged, {})
    assert "ValueError" in logging.Formatter().format(logged)
    assert ODD not in logging.Formatter().format(logged)


class FullDisk(logging.Handler):
    """Fails as a handler does whose file cannot grow, which leaves ``emit`` where the handler is not careful."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("no space")


def test_a_fault_that_cannot_be_logged_is_counted_and_harms_nothing(recorded: RecordedMetrics) -> None:
    tracer = ReplicaTracer(TelemetryConfig(endpoint="http://127.0.0.1:9/v1/traces"), "fast")
    handler, log = FullDisk(), logging.getLogger("cluster.telemetry.trace_faults")
    log.addHandler(handler)
    try:
        tracer.came(traced(1))
        tracer.stepped([replace(last(1), waited_s=math.inf)], StepFacts())
    finally:
        log.removeHandler(handler)
    tracer.close()
    assert recorded.value(FAULTS, role="replica") == 1


def test_a_trace_that_fails_after_its_beginning_takes_up_no_room(recorded: RecordedMetrics) -> None:
    tracer = ReplicaTracer(TelemetryConfig(endpoint="http://127.0.0.1:9/v1/traces", max_pending=2), "fast")
    for number in range(5):
        odd = replace(traced(number), resume=None)  # type: ignore[arg-type]
        assert tracer.came(odd) is None
    assert tracer.came(traced(9)) is not None
    tracer.close()
    assert recorded.value(FAULTS, role="replica") == 5


def test_a_lost_trace_keeps_no_part_of_its_request_and_takes_up_no_room(recorded: RecordedMetrics) -> None:
    config = TelemetryConfig(endpoint="http://127.0.0.1:9/v1/traces", max_pending=1)
    sampler = trace_sampling.TraceSampler(config, "router", follows=False)
    record = sampler.begin("one", None)
    assert record is not None
    record.event(record.spans[0], EventName.CACHE, dict)
    assert sampler.begin("no room", None) is None
    sampler.lose(record, ValueError())
    assert record.noted == []
    assert sampler.begin("two", None) is not None
    sampler.close()


def test_a_request_that_fails_after_its_first_token_ends_its_trace(recorded: RecordedMetrics) -> None:
    with http_receiver() as received:
        tracer = ReplicaTracer(TelemetryConfig(endpoint=received.endpoint, max_pending=1), "fast")
        for number in range(2):
            assert tracer.came(traced(number)) is not None
            tracer.stepped([Delta(f"r{number}", (1,), "a")], StepFacts())
            tracer.stepped([Delta(f"r{number}", (), "", FinishReason.ERROR)], StepFacts())
        tracer.close()
    assert [span.name for span in received.spans] == ["generate", "generate"]
    assert all(span.status.code == span.status.STATUS_CODE_ERROR for span in received.spans)


def test_a_fault_of_a_step_costs_the_traces_that_link_to_it(recorded: RecordedMetrics) -> None:
    with http_receiver() as received:
        tracer = ReplicaTracer(TelemetryConfig(endpoint=received.endpoint), "fast")
        for number in range(4):
            tracer.came(traced(number))
        first = [Delta(f"r{number}", (1,), "a") for number in range(3)]
        tracer.stepped(first, StepFacts(seconds=math.nan))
        for number in range(4):
            tracer.stepped([last(number)], StepFacts())
        tracer.close()
    assert [span.name for span in received.spans].count("generate") == 1
    assert recorded.value(FAULTS, role="replica") == 3


def test_an_attribute_that_cannot_be_encoded_costs_no_trace(recorded: RecordedMetrics) -> None:
    with http_receiver() as received:
        tracer = OtelTracer(TelemetryConfig(endpoint=received.endpoint, sample_ratio=1.0))
        with tracer.request(None) as trace:
            trace.describe(
                {Attribute.OUTPUT_TOKENS: 2**70, Attribute.OPERATION: "chat", Attribute.REQUEST_MODEL: "\ud83d"}
            )
        tracer.close()
    (span,) = received.spans
    assert span.name == "chat ?"
    assert span.dropped_attributes_count == 1
    assert recorded.value(FAULTS, role="router") == 0


async def test_a_fault_on_the_engines_thread_ends_no_request_and_no_engine(
    recorded: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, odd = AsyncEngine.last_step, [StepFacts(seconds=math.nan)]
    monkeypatch.setattr(AsyncEngine, "last_step", property(lambda engine: odd[0] if odd else real.fget(engine)))  # type: ignore[attr-defined]
    with http_receiver() as received:
        async with service(received) as running:
            assert text_of(await running.ask(PARENT, stream=True, temperature=0)) == OUT
            odd.clear()
            assert text_of(await running.ask(PARENT, stream=True, temperature=0, max_tokens=41)) == OUT
            running.replicas["a"].actor._engine.check_health()
            running.export()
    assert [span.name for span in received.spans].count("chat fast") == 2
    assert [span.name for span in received.spans].count("generate") == 1  # of the second request
    assert recorded.value(FAULTS, role="replica") == 1


def test_other_requests_of_the_step_in_which_a_fault_is_end_as_they_would(recorded: RecordedMetrics) -> None:
    with http_receiver() as received:
        tracer = ReplicaTracer(TelemetryConfig(endpoint=received.endpoint, max_pending=3), "fast")
        for turn in range(4):  # more than max_pending: what is lost is not pending for ever
            numbers = [3 * turn + each for each in range(3)]
            for number in numbers:
                tracer.came(traced(number))
            deltas = [last(number) for number in numbers]
            deltas[1] = Delta(deltas[1].request_id, (1,), "a", FinishReason.STOP, Usage(1, 1, 0), waited_s=math.inf)
            tracer.stepped(deltas, StepFacts())
        tracer.close()
    assert [span.name for span in received.spans].count("generate") == 8
    assert recorded.value(FAULTS, role="replica") == 4


def test_a_request_is_answered_when_its_trace_cannot_begin_or_end(
    recorded: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = OtelTracer(TelemetryConfig(endpoint="http://127.0.0.1:9/v1/traces", sample_ratio=1.0))
    with tracer.request(None) as trace:
        trace.event(EventName.CACHE, lambda: {Attribute.STATUS: 1 // 0})
    with monkeypatch.context() as patched:
        patched.setattr(otel_tracer, "_ending_of", lambda error: 1 // 0)
        with pytest.raises(KeyError, match="of the request"), tracer.request(None):
            raise KeyError("of the request")
        patched.setattr(trace_sampling, "new_trace_id", lambda: 1 // 0)
        with tracer.request(None) as trace:
            trace.enter(SpanName.ACCESS)
            assert trace.context == ""
    tracer.close()
    assert recorded.value(FAULTS, role="router") == 3


def test_a_replica_takes_a_request_whose_trace_cannot_begin_and_refuses_as_the_engine_does(
    recorded: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = ReplicaTracer(TelemetryConfig(endpoint="http://127.0.0.1:9/v1/traces"), "fast")
    begun = tracer.came(traced(1))
    monkeypatch.setattr(TraceRecord, "settle", lambda record: 1 // 0)
    tracer.refused(begun, OverloadedError("full"))
    monkeypatch.setattr(replica_tracer, "caller_of", lambda traceparent, state: 1 // 0)
    assert tracer.came(traced(2)) is None
    tracer.stepped([last(2)], StepFacts())
    tracer.close()
    assert recorded.value(FAULTS, role="replica") == 2
