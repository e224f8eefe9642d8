"""``TraceRecord``: the spans of one request in this process, as plain data, until it is known whether they are wanted.

A span of OpenTelemetry's SDK costs some 25 µs, one of these 1 µs. What describes it stays as it was given until the
request ends: of those whose trace is dropped nothing is made.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from router.ports.trace_names import Attribute, EventName
from router.ports.tracer import Attributes, Value

TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
"""W3C's traceparent of version 00, or of a later one, of which the same part is read."""
SAMPLED = 1
CANCELLED = "cancelled"
"""The attribute ERROR of what ended because its caller has left, or did not wait any longer."""
MAX_SPANS = 64  # of one request in one process
MAX_EVENTS = 32  # of one request in one process
MAX_OF_NAME = 16  # of these with one name, so that many verdicts leave room for a failover
MAX_TEXT = 128  # characters of an attribute
MAX_STATE = 512  # characters of a tracestate, the least that W3C has a service pass on
MAX_MEMBERS = 32  # of a tracestate, by W3C
STATE_MEMBER = re.compile(r"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
"""A key and a value of W3C's tracestate: of printable ASCII, without comma and equals sign."""


class Caller(NamedTuple):
    """The span of another process on whose behalf this one does a request, by its W3C trace id and span id.
    ``sampled``: that process keeps its trace. ``state`` is the W3C tracestate that goes with it."""

    trace_id: int
    span_id: int
    sampled: bool
    state: str = ""


class RecordedEvent(NamedTuple):
    """An event of ``span``, at nanoseconds since 1970. ``attributes`` is called if the trace is kept."""

    span: RecordedSpan
    name: str
    at_ns: int
    attributes: Attributes
    weight: int


class SpanEvent(NamedTuple):
    """An event of a span that is kept, at nanoseconds since 1970."""

    name: str
    at_ns: int
    attributes: Mapping[Attribute, Value | None]


class Link(NamedTuple):
    """A span of another trace that a span has to do with, by its trace id and span id."""

    trace_id: int
    span_id: int


@dataclass(slots=True)
class RecordedSpan:
    """A span. Times are nanoseconds since 1970; ``ended_ns`` is 0 until it ends. ``parent_id`` is 0 without a parent.
    ``serves``: it is the first of a process that does a request."""

    name: str
    span_id: int
    parent_id: int
    started_ns: int
    ended_ns: int = 0
    serves: bool = False
    failed: bool = False
    described: tuple[Mapping[Attribute, Value | None], ...] = ()
    events: tuple[SpanEvent, ...] = ()
    links: tuple[Link, ...] = ()

    def describe(self, attributes: Mapping[Attribute, Value | None]) -> None:
        """Sets attributes, later ones in place of earlier ones. Those whose value is None are left out."""
        self.described += (attributes,)

    def end(self, ended_ns: int | None = None) -> None:
        """Ends the span now, or at ``ended_ns``. Without effect on one that has ended."""
        self.ended_ns = self.ended_ns or ended_ns or time.time_ns()


@dataclass(slots=True)
class TraceRecord:
    """The spans of a request, in the order of their beginnings; the first is around the others. ``sampled``: they are
    kept in any case; ``followed``: since the caller keeps its trace. ``state`` is the W3C tracestate of the trace.
    ``noted``: events whose attributes are not computed yet."""

    trace_id: int
    sampled: bool
    followed: bool = False
    state: str = ""
    spans: list[RecordedSpan] = field(default_factory=list)
    noted: list[RecordedEvent] = field(default_factory=list)

    def begin(self, name: str, parent_id: int, started_ns: int | None = None) -> RecordedSpan:
        """Begins a span and returns it. ``parent_id`` is the id of its parent, or 0; ``started_ns`` its beginning in
        nanoseconds since 1970, None for now. A span beyond MAX_SPANS can be used, but is not kept."""
        serves = not self.spans
        span = RecordedSpan(name, _new_id(64), parent_id, started_ns or time.time_ns(), serves=serves)
        if len(self.spans) < MAX_SPANS:
            self.spans.append(span)
        return span

    def event(
        self,
        span: RecordedSpan,
        name: EventName,
        attributes: Attributes,
        at_ns: int | None = None,
        weight: int = 0,
    ) -> None:
        """Adds an event to ``span``, at nanoseconds since 1970, None for now. Those beyond MAX_EVENTS are dropped.
        Beyond MAX_OF_NAME it takes the place of the lightest of its name that has less ``weight``; if none has, it is
        dropped."""
        alike = [each for each in self.noted if each.name == name.value]
        if len(alike) >= MAX_OF_NAME:
            lightest = min(alike, key=lambda each: each.weight)
            if lightest.weight >= weight:
                return
            self.noted.remove(lightest)
        if len(self.noted) < MAX_EVENTS:
            self.noted.append(RecordedEvent(span, name.value, at_ns or time.time_ns(), attributes, weight))

    def settle(self) -> None:
        """Computes the attributes of the events, which hold no other part of the request from then on."""
        for each in self.noted:
            each.span.events += (SpanEvent(each.name, each.at_ns, each.attributes()),)
        self.noted.clear()

    def traceparent(self, span: RecordedSpan) -> str:
        """Returns the W3C traceparent that names ``span`` as the parent of spans in another process."""
        return f"00-{self.trace_id:032x}-{span.span_id:016x}-{int(self.sampled):02x}"


def wanted(*described: Mapping[Attribute, Value | None]) -> dict[str, Value]:
    """Returns the attributes that ``described`` sets, later ones in place of earlier ones, without those that are None.
    Texts are cut to MAX_TEXT characters."""
    return {
        name: value[:MAX_TEXT] if isinstance(value, str) else value
        for attributes in described
        for name, value in attributes.items()
        if value is not None
    }


def new_trace_id() -> int:
    """Returns the id of a trace that begins here."""
    return _new_id(128)


def caller_of(traceparent: str | None, state: str = "") -> Caller | None:
    """Returns the caller that a traceparent names, with ``state``, its tracestate; None for one that is missing or
    malformed."""
    found = TRACEPARENT.fullmatch(traceparent or "")
    if found is None or (found[5] is not None and found[1] == "00"):
        return None
    return Caller(int(found[2], 16), int(found[3], 16), bool(int(found[4], 16) & SAMPLED), state)


def valid_state(state: str) -> str:
    """Returns a W3C tracestate unchanged, as it is to be passed on; "" if it is malformed, has no
    member, or is longer than MAX_STATE."""
    if not state or len(state) > MAX_STATE:
        return ""
    members = [member for each in state.split(",") if (member := each.strip(" \t"))]
    return state if 0 < len(members) <= MAX_MEMBERS and all(map(STATE_MEMBER.fullmatch, members)) else ""


def _new_id(bits: int) -> int:
    """Returns a number from 1."""
    return random.getrandbits(bits) or 1
