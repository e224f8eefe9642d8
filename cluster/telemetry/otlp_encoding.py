"""``export_requests``: encodes kept traces as the messages of OTLP, which its receivers take by HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.util.types import AttributeValue

from cluster.telemetry.trace_record import RecordedSpan

SCOPE = "manta"
MAX_BYTES = 3_500_000
"""Of a message. Receivers by gRPC take 4 MiB by default."""
HEAD_BYTES = 64  # of the tags and lengths around a message's parts, at most


@dataclass(frozen=True, slots=True)
class KeptTrace:
    """The spans of a request that are to be sent, with the attributes of the process that has recorded them.

    The SDK queues it as if it were one span: its own spans would cost four times as much to make. All that it asks of a
    span is whether its ``context`` is sampled.
    """

    trace_id: int
    spans: tuple[RecordedSpan, ...]
    resource: Mapping[str, AttributeValue]
    context: ClassVar[SpanContext] = SpanContext(1, 1, False, TraceFlags(TraceFlags.SAMPLED))


def export_requests(traces: Sequence[KeptTrace]) -> Iterator[ExportTraceServiceRequest]:
    """Yields messages with all spans of ``traces``, mostly one; none is larger than MAX_BYTES. All traces are of this
    process."""
    spans = [_span(kept.trace_id, span) for kept in traces for span in kept.spans]
    resource = Resource(attributes=key_values(traces[0].resource)) if traces else Resource()
    whole = _message(resource, spans)
    if whole.ByteSize() <= MAX_BYTES:
        yield whole
        return
    room = MAX_BYTES - resource.ByteSize() - HEAD_BYTES
    left, part = room, list[Span]()
    for span in spans:
        size = span.ByteSize() + HEAD_BYTES
        if part and size > left:
            yield _message(resource, part)
            left, part = room, []
        left -= size
        part.append(span)
    yield _message(resource, part)


def _message(resource: Resource, spans: Sequence[Span]) -> ExportTraceServiceRequest:
    scoped = ScopeSpans(scope=InstrumentationScope(name=SCOPE), spans=spans)
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource, scope_spans=[scoped])])


def _span(trace_id: int, span: RecordedSpan) -> Span:
    return Span(
        trace_id=trace_id.to_bytes(16, "big"),
        span_id=span.span_id.to_bytes(8, "big"),
        parent_span_id=span.parent_id.to_bytes(8, "big") if span.parent_id else b"",
        name=span.name,
        kind=Span.SPAN_KIND_SERVER if span.serves else Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=span.started_ns,
        end_time_unix_nano=span.ended_ns,
        attributes=key_values(dict(span.attributes)),  # a copy: another thread may still describe the span
        events=[
            Span.Event(name=name, time_unix_nano=at_ns, attributes=key_values(attributes))
            for name, at_ns, attributes in span.events
        ],
        links=[
            Span.Link(trace_id=each.trace_id.to_bytes(16, "big"), span_id=each.span_id.to_bytes(8, "big"))
            for each in span.links
        ],
        status=Status(code=Status.STATUS_CODE_ERROR if span.failed else Status.STATUS_CODE_UNSET),
    )


def key_values(attributes: Mapping[str, AttributeValue]) -> list[KeyValue]:
    """Returns attributes as OTLP has them."""
    return [KeyValue(key=name, value=_value(value)) for name, value in attributes.items()]


def _value(value: AttributeValue) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case Sequence():
            return AnyValue(array_value=ArrayValue(values=[_value(each) for each in value]))
    raise TypeError(f"an attribute is a {type(value).__name__}")
