"""Traces are encoded to the byte as OpenTelemetry's own exporter writes them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link as SdkLink
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceState

from cluster.telemetry import otlp_encoding
from cluster.telemetry.otlp_encoding import SCOPE, KeptTrace, encoded_resource, encoded_spans, export_requests
from cluster.telemetry.trace_record import MAX_TEXT, Link, RecordedSpan, SpanEvent
from router.ports.trace_names import Attribute
from router.ports.tracer import Value

SCOPES = InstrumentationScope(SCOPE)
TEXT = st.text(st.characters(), max_size=MAX_TEXT)  # with surrogates that have no other half
SCALAR = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), TEXT, st.sampled_from(Attribute))
VALUE = st.one_of(SCALAR, st.lists(SCALAR, max_size=4), st.lists(SCALAR, max_size=4).map(tuple))
HUGE = st.sampled_from([2**63, -(2**63) - 1, 10**30, 3j, {1, 2}, object(), (1, 2**64)])
NAMES = st.sampled_from(Attribute)
ATTRIBUTES = st.dictionaries(NAMES, st.one_of(VALUE, st.none()), max_size=6)
LINKS = st.lists(st.builds(Link, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1)), max_size=3).map(tuple)
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
RESOURCE = st.dictionaries(UNICODE, UNICODE)
STATE = st.dictionaries(st.from_regex(r"[a-z][a-z0-9_*/-]{0,9}", fullmatch=True), st.text("aZ09~-", min_size=1))
"""The members of a W3C tracestate."""


def events(least: int) -> st.SearchStrategy[tuple[SpanEvent, ...]]:
    """Events, with names of ``least`` characters and times from ``least``."""
    named = TEXT.filter(lambda name: len(name) >= least)
    one = st.builds(SpanEvent, named, st.integers(least, 2**64 - 1), ATTRIBUTES)
    return st.lists(one, max_size=3).map(tuple)


def recorded(least: int) -> st.SearchStrategy[RecordedSpan]:
    """Spans, with names of ``least`` characters and times from ``least``."""
    return st.builds(
        RecordedSpan,
        name=TEXT.filter(lambda name: len(name) >= least),
        span_id=st.integers(1, 2**64 - 1),
        parent_id=st.integers(0, 2**64 - 1),
        started_ns=st.integers(least, 2**64 - 1),
        ended_ns=st.integers(least, 2**64 - 1),
        serves=st.booleans(),
        failed=st.booleans(),
        described=st.lists(ATTRIBUTES, max_size=3).map(tuple),
        events=events(least),
        links=LINKS,
    )


def traces(least: int) -> st.SearchStrategy[list[tuple[int, list[RecordedSpan]]]]:
    """Traces by id and spans, which ``recorded`` makes."""
    one = st.tuples(st.integers(1, 2**128 - 1), st.lists(recorded(least), min_size=1, max_size=3))
    return st.lists(one, max_size=3)


@settings(max_examples=150, deadline=None)
@given(traces(1), RESOURCE)
def test_the_bytes_are_those_of_the_sdk(made: list[tuple[int, list[RecordedSpan]]], resource: dict[str, str]) -> None:
    expected = encode_spans([as_sdk(number, span, resource) for number, spans in made for span in spans])
    assert b"".join(messages(made, resource)) == expected.SerializeToString()


@settings(max_examples=50, deadline=None)
@given(recorded(1), STATE)
def test_a_tracestate_is_encoded_as_by_the_sdk(span: RecordedSpan, members: dict[str, str]) -> None:
    state = TraceState(list(members.items()))
    expected = encode_spans([as_sdk(1, span, {}, state)]).SerializeToString()
    encoded = encoded_spans(KeptTrace(1, (span,), state.to_header()))
    assert b"".join(export_requests(encoded_resource({}), encoded)) == expected


@settings(max_examples=100, deadline=None)
@given(traces(0))
def test_empty_names_and_times_are_read_as_those_of_the_sdk(made: list[tuple[int, list[RecordedSpan]]]) -> None:
    """A field that has its default may be written or not."""
    expected = encode_spans([as_sdk(number, span, {}) for number, spans in made for span in spans])
    assert ExportTraceServiceRequest.FromString(b"".join(messages(made, {}))) == expected


@settings(max_examples=100, deadline=None)
@given(recorded(1), st.dictionaries(NAMES, st.one_of(VALUE, HUGE), min_size=1, max_size=6), events(1))
def test_an_attribute_that_has_no_place_in_otlp_is_left_out_as_by_the_sdk_and_counted(
    span: RecordedSpan, odd: dict[Attribute, Value], others: tuple[SpanEvent, ...]
) -> None:
    span.described += (odd,)
    span.events = (*others, SpanEvent("odd", 7, odd))
    (expected,) = spans_of(encode_spans([as_sdk(1, span, {})]).SerializeToString())
    expected.dropped_attributes_count = len(set_by(span.described)) - len(expected.attributes)
    for event, (_, _, attributes) in zip(expected.events, span.events, strict=True):
        event.dropped_attributes_count = len(set_by((attributes,))) - len(event.attributes)
    assert spans_of(b"".join(messages([(1, [span])], {}))) == [expected]


def test_values_that_are_equal_but_of_other_types_keep_theirs() -> None:
    equal = [1, True, 1.0, 0, False, 0.0, -0.0, (1,), (True,), (1.0,), (0.0,), (-0.0,)]
    for value in (*equal, *reversed(equal)):  # whatever is remembered of the ones before
        span = RecordedSpan("x", 1, 0, 1, 2, described=({Attribute.STEP: cast("Value", value)},))
        expected = encode_spans([as_sdk(1, span, {})]).SerializeToString()
        assert b"".join(messages([(1, [span])], {})) == expected, repr(value)


def test_an_attribute_is_set_last_by_the_last_and_cut_to_its_length() -> None:
    described: tuple[Mapping[Attribute, Value | None], ...] = (
        {Attribute.TIER: "auto", Attribute.STATUS: 200, Attribute.ERROR: None},
        {Attribute.TIER: "fast", Attribute.ERROR: "é" * MAX_TEXT + "cut"},
        {Attribute.ERROR: None},
    )
    span = RecordedSpan("n" * 500, 1, 0, 1, 2, described=described)
    (sent,) = spans_of(b"".join(messages([(1, [span])], {})))
    assert sent.name == "n" * MAX_TEXT
    assert {each.key: each.value.string_value or each.value.int_value for each in sent.attributes} == {
        Attribute.TIER: "fast",
        Attribute.STATUS: 200,
        Attribute.ERROR: "é" * MAX_TEXT,
    }


@pytest.mark.parametrize("odd", [{"started_ns": -1}, {"ended_ns": 2**64}, {"span_id": 2**64}, {"name": None}])
def test_a_span_that_has_no_place_in_otlp_is_refused(odd: dict[str, Any]) -> None:
    span = RecordedSpan("x", 1, 0, 1, 2)
    for name, value in odd.items():
        setattr(span, name, value)
    with pytest.raises((struct.error, OverflowError, TypeError)):
        encoded_spans(KeptTrace(1, (span,)))


def test_messages_are_cut_between_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = [(number, [RecordedSpan("x" * number, number, 0, 1, 2) for _ in "ab"]) for number in range(1, 41)]
    monkeypatch.setattr(otlp_encoding, "MAX_BYTES", 600)
    sent = messages(traces, {"service.name": "manta"})
    assert 3 < len(sent) < 2 * len(traces)
    assert max(map(len, sent)) <= 600
    found = [int.from_bytes(span.trace_id, "big") for message in sent for span in spans_of(message)]
    assert found == [number for number in range(1, 41) for _ in "ab"]


def test_a_span_that_is_larger_than_a_message_has_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = [(number, [RecordedSpan("x", number, 0, 1, 2)]) for number in (1, 2, 3)]
    monkeypatch.setattr(otlp_encoding, "MAX_BYTES", 10)
    assert [len(spans_of(message)) for message in messages(traces, {})] == [1, 1, 1]


def test_without_spans_nothing_is_sent() -> None:
    assert messages([], {"service.name": "manta"}) == []


def messages(traces: Sequence[tuple[int, Sequence[RecordedSpan]]], resource: Mapping[str, str]) -> list[bytes]:
    """The messages of traces, by their ids and spans."""
    encoded = [each for number, spans in traces for each in encoded_spans(KeptTrace(number, tuple(spans)))]
    return list(export_requests(encoded_resource(resource), encoded))


def as_sdk(
    trace_id: int, span: RecordedSpan, resource: Mapping[str, str], state: TraceState | None = None
) -> ReadableSpan:
    """What the SDK would have recorded."""
    parent = SpanContext(trace_id, span.parent_id, is_remote=span.serves) if span.parent_id else None
    made = ReadableSpan(
        valid(span.name),
        SpanContext(trace_id, span.span_id, is_remote=False, trace_state=state),
        parent,
        Resource(resource),
        events=[Event(valid(name), timestamp=at_ns) for name, at_ns, _ in span.events],
        links=[SdkLink(SpanContext(each.trace_id, each.span_id, is_remote=False)) for each in span.links],
        kind=SpanKind.SERVER if span.serves else SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
        start_time=span.started_ns,
        end_time=span.ended_ns,
        instrumentation_scope=SCOPES,
    )
    made._attributes = set_by(span.described)  # the SDK's own setter drops what is to be encoded
    for event, (_, _, attributes) in zip(made.events, span.events, strict=True):
        event._attributes = set_by((attributes,))
    return made


def set_by(described: Sequence[Mapping[Attribute, Any]]) -> dict[str, Any]:
    """The attributes that are set, by an own reading of ``RecordedSpan.describe``."""
    found: dict[str, Any] = {}
    for attributes in described:
        found |= {name.value: valid(value) for name, value in attributes.items() if value is not None}
    return found


def valid(value: Any) -> Any:
    """``value`` with a question mark for each surrogate that has no other half, which the SDK cannot encode."""
    if isinstance(value, str):
        return "".join("?" if "\ud800" <= each <= "\udfff" else each for each in value)
    return type(value)(valid(each) for each in value) if isinstance(value, list | tuple) else value


def spans_of(message: bytes) -> list[Span]:
    """The spans of a message, which names one process and one scope."""
    (resource,) = ExportTraceServiceRequest.FromString(message).resource_spans
    (scope,) = resource.scope_spans
    return list(scope.spans)
