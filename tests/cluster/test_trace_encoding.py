"""Traces are encoded as the protobuf library reads and writes them."""

from __future__ import annotations

from typing import get_args

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from cluster.telemetry import otlp_encoding
from cluster.telemetry.otlp_encoding import SCOPE, encoded_trace, export_requests
from cluster.telemetry.trace_record import MAX_TEXT, Link, TraceRecord
from router.ports.trace_names import Attribute, EventName
from router.ports.tracer import Value

TRACE_ID, PARENT_ID = 2**128 - 5, 2**63 + 9
LONG = "é" * MAX_TEXT + "cut"
VALUES: tuple[tuple[Value, AnyValue], ...] = (
    (True, AnyValue(bool_value=True)),
    (1, AnyValue(int_value=1)),
    (1.0, AnyValue(double_value=1.0)),
    ("1", AnyValue(string_value="1")),
    (False, AnyValue(bool_value=False)),
    (0, AnyValue(int_value=0)),
    (0.0, AnyValue(double_value=0.0)),
    ("", AnyValue(string_value="")),
    (127, AnyValue(int_value=127)),
    (128, AnyValue(int_value=128)),
    (2**62 + 1, AnyValue(int_value=2**62 + 1)),
    (-1, AnyValue(int_value=-1)),
    (-0.125, AnyValue(double_value=-0.125)),
    (LONG, AnyValue(string_value=LONG[:MAX_TEXT])),
    ("日本 🙂", AnyValue(string_value="日本 🙂")),
    ((), AnyValue(array_value=ArrayValue())),
    (("stop", ""), AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=each) for each in ("stop", "")]))),
)


def pair(name: str, value: AnyValue) -> KeyValue:
    return KeyValue(key=name, value=value)


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=[repr(value)[:12] for value, _ in VALUES])
def test_each_kind_of_value_is_what_the_library_writes(value: Value, expected: AnyValue) -> None:
    record = TraceRecord(TRACE_ID, sampled=True)
    span = record.begin("chat fast", 0)
    span.describe({Attribute.STEP: value})
    span.end()
    (sent,) = spans_of(b"".join(export_requests({}, [encoded_trace(TRACE_ID, record.spans)])))
    assert list(sent.attributes) == [pair(Attribute.STEP, expected)]


def test_a_value_of_another_type_is_refused() -> None:
    assert {type(value) for value, _ in VALUES} == {getattr(kind, "__origin__", kind) for kind in get_args(Value)}
    record = TraceRecord(TRACE_ID, sampled=True)
    record.begin("chat fast", 0).describe({Attribute.STEP: b"bytes"})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="bytes"):
        encoded_trace(TRACE_ID, record.spans)


def test_a_message_is_to_the_byte_what_the_library_writes() -> None:
    record = TraceRecord(TRACE_ID, sampled=True)
    first = record.begin("chat " + "x" * 200, PARENT_ID, 2**60 + 1)
    first.describe({Attribute.TIER: "auto", Attribute.STATUS: 200, Attribute.ERROR: None})
    first.describe({Attribute.TIER: "fast", Attribute.ERROR: "internal"})
    first.describe({Attribute.ERROR: None})
    record.event(first, EventName.FAILOVER, lambda: {Attribute.FAILOVER_KIND: "resumed"}, 2**60 + 7)
    record.event(first, EventName.CACHE, lambda: {Attribute.CACHE: "miss", Attribute.CACHE_REASON: None}, 2**60 + 8)
    first.links = (Link(3, 4), Link(TRACE_ID, PARENT_ID))
    first.failed = True
    first.end(2**60 + 9)
    room = record.begin("access", first.span_id, 5)
    room.end(6)
    record.settle()
    whole = TRACE_ID.to_bytes(16, "big")
    expected = ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=[pair("service.name", AnyValue(string_value="manta"))]),
                scope_spans=[
                    ScopeSpans(
                        scope=InstrumentationScope(name=SCOPE),
                        spans=[
                            Span(
                                trace_id=whole,
                                span_id=first.span_id.to_bytes(8, "big"),
                                parent_span_id=PARENT_ID.to_bytes(8, "big"),
                                name=first.name,
                                kind=Span.SPAN_KIND_SERVER,
                                start_time_unix_nano=2**60 + 1,
                                end_time_unix_nano=2**60 + 9,
                                attributes=[
                                    pair(Attribute.TIER, AnyValue(string_value="fast")),
                                    pair(Attribute.STATUS, AnyValue(int_value=200)),
                                    pair(Attribute.ERROR, AnyValue(string_value="internal")),
                                ],
                                events=[
                                    Span.Event(
                                        time_unix_nano=2**60 + 7,
                                        name=EventName.FAILOVER,
                                        attributes=[pair(Attribute.FAILOVER_KIND, AnyValue(string_value="resumed"))],
                                    ),
                                    Span.Event(
                                        time_unix_nano=2**60 + 8,
                                        name=EventName.CACHE,
                                        attributes=[pair(Attribute.CACHE, AnyValue(string_value="miss"))],
                                    ),
                                ],
                                links=[
                                    Span.Link(
                                        trace_id=each.trace_id.to_bytes(16, "big"),
                                        span_id=each.span_id.to_bytes(8, "big"),
                                    )
                                    for each in first.links
                                ],
                                status=Status(code=Status.STATUS_CODE_ERROR),
                            ),
                            Span(
                                trace_id=whole,
                                span_id=room.span_id.to_bytes(8, "big"),
                                parent_span_id=first.span_id.to_bytes(8, "big"),
                                name="access",
                                kind=Span.SPAN_KIND_INTERNAL,
                                start_time_unix_nano=5,
                                end_time_unix_nano=6,
                                status=Status(),
                            ),
                        ],
                    )
                ],
            )
        ]
    )
    (message,) = export_requests({"service.name": "manta"}, [encoded_trace(TRACE_ID, record.spans)])
    assert ExportTraceServiceRequest.FromString(message) == expected
    assert len(message) == expected.ByteSize()


def test_messages_are_cut_between_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = []
    for trace_id in range(1, 41):
        record = TraceRecord(trace_id, sampled=True)
        record.begin("chat " + "x" * trace_id, 0).end()
        traces.append(encoded_trace(trace_id, record.spans))
    monkeypatch.setattr(otlp_encoding, "MAX_BYTES", 600)
    messages = list(export_requests({"service.name": "manta"}, traces))
    assert 3 < len(messages) < len(traces)
    assert max(map(len, messages)) <= 600
    sent = [int.from_bytes(span.trace_id, "big") for message in messages for span in spans_of(message)]
    assert sent == list(range(1, 41))


def spans_of(message: bytes) -> list[Span]:
    """The spans of a message, which names one process and one scope."""
    (resource,) = ExportTraceServiceRequest.FromString(message).resource_spans
    (scope,) = resource.scope_spans
    return list(scope.spans)
