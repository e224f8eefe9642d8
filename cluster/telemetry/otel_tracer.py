"""``OtelTracer``: the routers' traces, sent by OpenTelemetry. Implements ``Tracer``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from typing import TypeVar

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.log_context import log_with_trace
from cluster.telemetry.trace_record import RecordedSpan, TraceRecord
from cluster.telemetry.trace_sampling import TraceSampler
from router.errors import SERVICE_FAULTS, refusal_of
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
        """Ends the trace. If ``error`` is the service's fault, the spans of the current stage and of the request are
        marked as failed. A refused request is not marked as failed: otherwise clients could have any number of traces
        kept."""
        kind, failed = (None, False) if error is None else _kind_of(error)
        for span in (self._current, self._root):
            span.describe({Attribute.ERROR: kind})
            span.failed = span.failed or failed
            span.end()

    @property
    def _current(self) -> RecordedSpan:
        return self._room or self._root


class OtelTracer:
    """Makes the traces of the requests to this router, and sends them by OpenTelemetry. Implements ``Tracer``."""

    def __init__(self, config: TelemetryConfig, application: str = "") -> None:
        self._export = TraceSampler(config, "router", follows=config.follow_caller, application=application)

    def request(self, caller: str | None) -> AbstractContextManager[Trace]:
        record = self._export.begin(UNNAMED, caller)
        return nullcontext(NoTrace()) if record is None else self._traced(record)

    def close(self) -> None:
        """Sends the spans that have ended, before the process ends."""
        self._export.close()

    @contextmanager
    def _traced(self, record: TraceRecord) -> Iterator[Trace]:
        trace = OtelTrace(record)
        log_with_trace(lambda: trace.context)
        error: BaseException | None = None
        try:
            yield trace
        except BaseException as raised:
            error = raised
            raise
        finally:
            trace.end(error)
            self._export.end(record)


def _kind_of(error: BaseException) -> tuple[str, bool]:
    """Returns the code by which the client knows an error, and whether it is the service's fault. Never the error's
    message, which may quote the request."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return CANCELLED, False
    if not isinstance(error, Exception):
        return type(error).__name__, True
    refusal = refusal_of(error)
    return refusal.code or refusal.kind.value, refusal.kind in SERVICE_FAULTS
