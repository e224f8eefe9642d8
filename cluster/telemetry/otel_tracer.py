"""``OtelTracer``: the routers' traces, sent by OpenTelemetry. Implements ``Tracer``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from typing import TypeVar

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.trace_record import RecordedSpan, TraceRecord
from cluster.telemetry.trace_sampling import TraceExport
from router.errors import refusal_of
from router.ports.trace_names import Attribute, EventName, SpanName
from router.ports.tracer import NoTrace, Trace, Value

T = TypeVar("T")

UNNAMED = "request"
"""The name of a request's span until its model is known."""
CANCELLED = "cancelled"


class OtelTrace:
    """The trace of one request. Implements ``Trace``."""

    def __init__(self, record: TraceRecord) -> None:
        self._record = record
        self._root = record.spans[0]
        self._room: RecordedSpan | None = None

    def enter(self, room: SpanName) -> None:
        if self._room is not None:
            self._room.end()
        self._room = self._record.begin(room.value, self._root.span_id)

    def describe(self, attributes: Mapping[Attribute, Value | None]) -> None:
        self._root.describe(attributes)
        if attributes.get(Attribute.ERROR) is not None:
            self._root.failed = True
        if Attribute.OPERATION in attributes:
            self._root.name = f"{attributes[Attribute.OPERATION]} {attributes.get(Attribute.REQUEST_MODEL)}"

    def event(self, name: EventName, attributes: Mapping[Attribute, Value]) -> None:
        self._current.event(name, attributes)

    async def around(self, name: SpanName, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        span = self._record.begin(name.value, self._current.span_id)
        try:
            async with aclosing(items):
                async for item in items:
                    yield item
        finally:
            span.end()

    @property
    def context(self) -> str:
        return self._record.traceparent(self._current)

    def end(self, error: BaseException | None) -> None:
        """Ends the trace. The room in which ``error`` was raised has failed, and so has the request."""
        kind = None if error is None else _kind_of(error)
        for span in (self._current, self._root):
            span.describe({Attribute.ERROR: kind})
            span.failed = span.failed or kind not in (None, CANCELLED)
            span.end()

    @property
    def _current(self) -> RecordedSpan:
        return self._room or self._root


class OtelTracer:
    """The traces of this router. Implements ``Tracer``."""

    def __init__(self, config: TelemetryConfig) -> None:
        self._export = TraceExport(config, "router")

    def request(self, caller: str | None) -> AbstractContextManager[Trace]:
        record = self._export.begin(UNNAMED, caller)
        return nullcontext(NoTrace()) if record is None else self._traced(record)

    def close(self) -> None:
        """Exports what has ended."""
        self._export.close()

    @contextmanager
    def _traced(self, record: TraceRecord) -> Iterator[Trace]:
        trace = OtelTrace(record)
        error: BaseException | None = None
        try:
            yield trace
        except BaseException as raised:
            error = raised
            raise
        finally:
            trace.end(error)
            self._export.end(record)


def _kind_of(error: BaseException) -> str:
    """Returns the code by which the client knows an error. Never its message, which may quote the request."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return CANCELLED
    if not isinstance(error, Exception):
        return type(error).__name__
    refusal = refusal_of(error)
    return refusal.code or refusal.kind.value
