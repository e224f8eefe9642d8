"""``export_request``: encodes finished spans as the message of OTLP, which its receivers take by HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

KINDS = {
    SpanKind.INTERNAL: Span.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: Span.SPAN_KIND_SERVER,
    SpanKind.CLIENT: Span.SPAN_KIND_CLIENT,
    SpanKind.PRODUCER: Span.SPAN_KIND_PRODUCER,
    SpanKind.CONSUMER: Span.SPAN_KIND_CONSUMER,
}
STATUS = {
    StatusCode.UNSET: Status.STATUS_CODE_UNSET,
    StatusCode.OK: Status.STATUS_CODE_OK,
    StatusCode.ERROR: Status.STATUS_CODE_ERROR,
}
SCOPE = "manta"


def export_request(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """Returns the message with ``spans``, which all have the same resource: that of this process."""
    resource = Resource(attributes=key_values(spans[0].resource.attributes)) if spans else Resource()
    scoped = ScopeSpans(scope=InstrumentationScope(name=SCOPE), spans=[_span(span) for span in spans])
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource, scope_spans=[scoped])])


def _span(span: ReadableSpan) -> Span:
    context, parent = span.context, span.parent
    return Span(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        parent_span_id=b"" if parent is None else parent.span_id.to_bytes(8, "big"),
        name=span.name,
        kind=KINDS[span.kind],
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        attributes=key_values(span.attributes or {}),
        events=[
            Span.Event(name=event.name, time_unix_nano=event.timestamp, attributes=key_values(event.attributes or {}))
            for event in span.events
        ],
        status=Status(code=STATUS[span.status.status_code]),
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
