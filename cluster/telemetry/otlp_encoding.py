"""``encoded_spans`` and ``export_requests``: kept traces as the messages of OTLP, for its receivers by HTTP and gRPC.

Runs on the thread of the exporter. With the objects of the protobuf library the same takes four times as long, which
threads that share an interpreter take from each other. Tags are those of OTLP's trace.proto 1, in ascending order, so
that the bytes are those of OpenTelemetry's own exporter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import ClassVar

from opentelemetry.trace import SpanContext, TraceFlags

from cluster.telemetry.protobuf_wire import double, field, text, varint
from cluster.telemetry.trace_record import MAX_TEXT, Link, RecordedSpan, SpanEvent, wanted
from router.ports.tracer import Value

SCOPE = "manta"
MAX_BYTES = 3_500_000
"""Of a message. Receivers by gRPC take 4 MiB by default."""
MAX_REMEMBERED = 2_048  # attributes and names; most are of small sets, such as tiers
MAX_REMEMBERED_TEXT = 24  # characters; longer ones are ids, which come once
INTERNAL, SERVER = 1, 2  # kinds of spans
STATUS_UNSET, STATUS_ERROR = field(b"\x7a", b""), field(b"\x7a", b"\x18\x02")
HAS_IS_REMOTE, IS_REMOTE = 0x100, 0x200  # of a span's flags: whether it is known, and whether its parent is elsewhere
FLAGS, LINK_FLAGS = Struct("<HI"), Struct("<BI")
SPAN_FLAGS, REMOTE_FLAGS = FLAGS.pack(0x0185, HAS_IS_REMOTE), FLAGS.pack(0x0185, HAS_IS_REMOTE | IS_REMOTE)
LINK_END = LINK_FLAGS.pack(0x35, HAS_IS_REMOTE)
SPAN_TIMES = Struct("<BQBQ")
STARTED, ENDED = 0x39, 0x41  # tags of a span's times
EVENT_TIME = Struct("<BQ")
HAPPENED = 0x09  # tag of an event's time
UNENCODABLE = (TypeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class KeptTrace:
    """The spans of a request that are to be sent, with the W3C tracestate of their trace.

    The SDK queues it as if it were one span: its own spans would cost ten times as much to make. All that it asks of a
    span is whether its ``context`` is sampled.
    """

    trace_id: int
    spans: tuple[RecordedSpan, ...]
    state: str = ""
    context: ClassVar[SpanContext] = SpanContext(1, 1, False, TraceFlags(TraceFlags.SAMPLED))


def encoded_resource(attributes: Mapping[str, Value]) -> bytes:
    """Returns the resource of a message, by the attributes of a process."""
    return field(b"\x0a", _attributes(b"\x0a", b"", attributes))


def encoded_spans(kept: KeptTrace) -> list[bytes]:
    """Returns each span of a trace as a field of ScopeSpans. Raises struct.error or OverflowError for an id or a time
    that has no place in its field."""
    whole = kept.trace_id.to_bytes(16, "big")
    state = field(b"\x1a", text(kept.state)) if kept.state else b""
    return [field(b"\x12", _span(whole, state, span)) for span in kept.spans]


def export_requests(resource: bytes, spans: Iterable[bytes]) -> Iterator[bytes]:
    """Yields messages (ExportTraceServiceRequest) with all ``spans``, mostly one; none if there are none. No message is
    larger than MAX_BYTES, unless it has one span that is."""
    scope = field(b"\x0a", field(b"\x0a", text(SCOPE)))
    room = MAX_BYTES - len(resource) - len(scope) - 3 * (1 + len(varint(MAX_BYTES)))
    left, part = room, list[bytes]()
    for span in spans:
        if part and len(span) > left:
            yield _message(resource, scope, part)
            left, part = room, []
        left -= len(span)
        part.append(span)
    if part:
        yield _message(resource, scope, part)


def _message(resource: bytes, scope: bytes, spans: Sequence[bytes]) -> bytes:
    return field(b"\x0a", resource + field(b"\x12", scope + b"".join(spans)))


def _span(trace_id: bytes, state: bytes, span: RecordedSpan) -> bytes:
    """Returns a span. ``state`` is the field of its trace's tracestate, or empty."""
    parent = b"\x22\x08" + span.parent_id.to_bytes(8, "big") if span.parent_id else b""
    made = (
        b"\x0a\x10"
        + trace_id
        + b"\x12\x08"
        + span.span_id.to_bytes(8, "big")
        + state
        + parent
        + _name(span.name, SERVER if span.serves else INTERNAL)
        + SPAN_TIMES.pack(STARTED, span.started_ns, ENDED, span.ended_ns)
    )
    if span.described:
        made += _attributes(b"\x4a", b"\x50", wanted(*span.described))
    for event in span.events:
        made += field(b"\x5a", _event(event))
    for link in span.links:
        made += field(b"\x6a", _link(link))
    made += STATUS_ERROR if span.failed else STATUS_UNSET
    return made + (REMOTE_FLAGS if span.serves and span.parent_id else SPAN_FLAGS)


def _event(event: SpanEvent) -> bytes:
    head = EVENT_TIME.pack(HAPPENED, event.at_ns) + field(b"\x12", text(event.name))
    return head + _attributes(b"\x1a", b"\x20", wanted(event.attributes))


def _link(link: Link) -> bytes:
    return b"\x0a\x10" + link.trace_id.to_bytes(16, "big") + b"\x12\x08" + link.span_id.to_bytes(8, "big") + LINK_END


@lru_cache(MAX_REMEMBERED)
def _name(name: str, kind: int) -> bytes:
    """Returns the fields of a span's name, cut to MAX_TEXT characters, and kind."""
    return field(b"\x2a", text(name[:MAX_TEXT])) + b"\x30" + varint(kind)


def _attributes(tag: bytes, dropped: bytes, attributes: Mapping[str, Value]) -> bytes:
    """Returns the fields of a list of attributes, which is the field ``tag``. Those that cannot be encoded are left
    out, and their number is the field ``dropped``, if it is not empty."""
    made, lost = list[bytes](), 0
    for name, value in attributes.items():
        try:
            made.append((_remembered if _comes_again(value) else _attribute)(tag, name, value))
        except UNENCODABLE:
            lost += 1
    if lost and dropped:
        made.append(dropped + varint(lost))
    return b"".join(made)


def _comes_again(value: Value) -> bool:
    """Returns whether the bytes of an attribute are worth remembering. Not those of floats: 0.0 equals -0.0."""
    kind = type(value)
    return kind is int or kind is bool or (kind is str and len(value) <= MAX_REMEMBERED_TEXT)  # type: ignore[arg-type]


def _attribute(tag: bytes, name: str, value: Value) -> bytes:
    return field(tag, field(b"\x0a", text(name)) + field(b"\x12", _value(value)))


_remembered = lru_cache(MAX_REMEMBERED, typed=True)(_attribute)


def _value(value: object) -> bytes:
    """Returns an AnyValue. Raises TypeError for a value of another type, and OverflowError for an integer that has no
    place in 64 bits."""
    match value:
        case bool():
            return b"\x10\x01" if value else b"\x10\x00"
        case int():
            return b"\x18" + varint(value)
        case float():
            return b"\x21" + double(value)
        case str():
            return field(b"\x0a", text(value))
        case tuple() | list():
            return field(b"\x2a", b"".join([field(b"\x0a", _value(each)) for each in value]))
    raise TypeError(f"an attribute is a {type(value).__name__}")
