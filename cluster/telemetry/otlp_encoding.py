"""``encoded_trace`` and ``export_requests``: kept traces as the messages of OTLP, for its receivers by HTTP and gRPC.

The spans of a request become bytes when it ends. With the objects of the protobuf library that takes six times as
long, and objects that wait to be sent are work for the garbage collector. Tags here are of OTLP's trace.proto 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import ClassVar

from opentelemetry.trace import SpanContext, TraceFlags

from cluster.telemetry.protobuf_wire import double, field, varint
from cluster.telemetry.trace_record import Link, RecordedSpan, SpanEvent, wanted
from router.ports.tracer import Value

SCOPE = "manta"
MAX_BYTES = 3_500_000
"""Of a message. Receivers by gRPC take 4 MiB by default."""
MAX_REMEMBERED = 2_048  # attributes and names; most are of small sets, such as tiers
INTERNAL, SERVER = 1, 2  # kinds of spans
STATUS_UNSET, STATUS_ERROR = field(b"\x7a", b""), field(b"\x7a", b"\x18\x02")
TIMES = Struct("<BQBQ")
STARTED, ENDED = 0x39, 0x41  # tags of a span's times


@dataclass(frozen=True, slots=True)
class KeptTrace:
    """The spans of a request that are to be sent, encoded as those of ScopeSpans.

    The SDK queues it as if it were one span: its own spans would cost ten times as much to make. All that it asks of a
    span is whether its ``context`` is sampled.
    """

    spans: bytes
    context: ClassVar[SpanContext] = SpanContext(1, 1, False, TraceFlags(TraceFlags.SAMPLED))


def encoded_trace(trace_id: int, spans: Iterable[RecordedSpan]) -> KeptTrace:
    """Encodes the spans of a trace."""
    whole = trace_id.to_bytes(16, "big")
    return KeptTrace(b"".join([field(b"\x12", _span(whole, span)) for span in spans]))


def export_requests(resource: Mapping[str, Value], traces: Sequence[KeptTrace]) -> Iterator[bytes]:
    """Yields messages (ExportTraceServiceRequest) with all ``traces`` of this process, whose attributes are
    ``resource``: mostly one. None is larger than MAX_BYTES, which a trace alone never is."""
    head = field(b"\x0a", _attributes(b"\x0a", resource))
    scope = field(b"\x0a", field(b"\x0a", SCOPE.encode()))
    room = MAX_BYTES - len(_message(head, scope)) - 3 * len(varint(MAX_BYTES))
    left, part = room, list[bytes]()
    for kept in traces:
        if part and len(kept.spans) > left:
            yield _message(head, scope, *part)
            left, part = room, []
        left -= len(kept.spans)
        part.append(kept.spans)
    yield _message(head, scope, *part)


def _message(head: bytes, *scoped: bytes) -> bytes:
    return field(b"\x0a", head + field(b"\x12", b"".join(scoped)))


def _span(trace_id: bytes, span: RecordedSpan) -> bytes:
    parent = b"\x22\x08" + span.parent_id.to_bytes(8, "big") if span.parent_id else b""
    made = (
        b"\x0a\x10"
        + trace_id
        + b"\x12\x08"
        + span.span_id.to_bytes(8, "big")
        + parent
        + _name(span.name, SERVER if span.serves else INTERNAL)
        + TIMES.pack(STARTED, span.started_ns, ENDED, span.ended_ns)
        + (STATUS_ERROR if span.failed else STATUS_UNSET)
    )
    if span.described:
        made += _attributes(b"\x4a", wanted(*span.described))
    for event in span.events:
        made += field(b"\x5a", _event(event))
    for link in span.links:
        made += field(b"\x6a", _link(link))
    return made


def _event(event: SpanEvent) -> bytes:
    return (
        b"\x09"
        + event.at_ns.to_bytes(8, "little")
        + field(b"\x12", event.name.encode())
        + _attributes(b"\x1a", wanted(event.attributes))
    )


def _link(link: Link) -> bytes:
    return b"\x0a\x10" + link.trace_id.to_bytes(16, "big") + b"\x12\x08" + link.span_id.to_bytes(8, "big")


@lru_cache(MAX_REMEMBERED)
def _name(name: str, kind: int) -> bytes:
    """Returns the fields of a span's name and kind."""
    return field(b"\x2a", name.encode()) + b"\x30" + varint(kind)


def _attributes(tag: bytes, attributes: Mapping[str, Value]) -> bytes:
    """Returns the fields of a list of attributes, which is the field ``tag``."""
    return b"".join([_attribute(tag, name, value) for name, value in attributes.items()])


@lru_cache(MAX_REMEMBERED, typed=True)
def _attribute(tag: bytes, name: str, value: Value) -> bytes:
    return field(tag, field(b"\x0a", name.encode()) + field(b"\x12", _value(value)))


def _value(value: Value) -> bytes:
    """Returns an AnyValue."""
    match value:
        case bool():
            return b"\x10\x01" if value else b"\x10\x00"
        case int():
            return b"\x18" + varint(value)
        case float():
            return b"\x21" + double(value)
        case str():
            return field(b"\x0a", value.encode())
        case tuple():
            return field(b"\x2a", b"".join([field(b"\x0a", _value(each)) for each in value]))
    raise TypeError(f"an attribute is a {type(value).__name__}")
