"""``OtelTracer``: the routers' traces, sent by OpenTelemetry. Implements ``Tracer``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from typing import NamedTuple, TypeVar

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.log_context import log_with_trace
from cluster.telemetry.trace_record import CANCELLED, RecordedSpan, TraceRecord, caller_of, valid_state
from cluster.telemetry.trace_sampling import TraceSampler
from router.errors import SERVICE_FAULTS, RefusalKind, refusal_of
from router.ports.trace_names import Attribute, EventName, SpanName
from router.ports.tracer import Attributes, NoTrace, Trace, Value
from router.transport.http_exchange import STATUS, ClientLeftError

T = TypeVar("T")

UNNAMED = "request"
"""The name of a request's span until its model is known."""
OK = 200


class OtelTrace:
    """The trace of one request. ``draw`` draws whether it is kept, once its tenant is known. Implements ``Trace``."""

    def __init__(self, record: TraceRecord, draw: Callable[[TraceRecord, str], None]) -> None:
        self._record = record
        self._draw = draw
        self._root = record.spans[0]
        self._room: RecordedSpan | None = None
        self._began = False
        self._failure: Exception | None = None

    def belongs_to(self, tenant: str) -> None:
        self._draw(self._record, tenant)
        self._root.describe({Attribute.TENANT: tenant})

    def enter(self, room: SpanName) -> None:
        if self._room is not None:
            self._room.end()
        self._room = self._record.begin(room, self._root.span_id)

    def describe(self, attributes: Mapping[Attribute, Value | None]) -> None:
        self._root.describe(attributes)
        if attributes.get(Attribute.ERROR) is not None:
            self._root.failed = True
        if Attribute.OPERATION in attributes:
            self._root.name = f"{attributes[Attribute.OPERATION]} {attributes.get(Attribute.REQUEST_MODEL)}"

    def event(self, name: EventName, attributes: Attributes, weight: int = 0) -> None:
        self._record.event(self._current, name, attributes, weight=weight)

    def began(self, *, status_sent: bool, held: bool) -> None:
        self._began = status_sent

    def released(self) -> None:
        pass  # the span ``moderate`` lasts to the end of the answer

    def fails(self, error: Exception) -> None:
        self._failure = error

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

    @property
    def state(self) -> str:
        return self._record.state

    def end(self, error: BaseException | None) -> None:
        """Ends the trace. If ``error`` is the service's fault, the spans of the current stage and of the request are
        marked as failed. A refused request is not marked as failed: otherwise clients could have any number of traces
        kept."""
        error = self._failure or error
        ending = Ending(None, OK, failed=False) if error is None else _ending_of(error)
        self._root.describe({Attribute.STATUS: OK if self._began else ending.status})
        for span in (self._current, self._root):
            span.describe({Attribute.ERROR: ending.error})
            span.failed = span.failed or ending.failed
            span.end()

    @property
    def _current(self) -> RecordedSpan:
        return self._room or self._root


class OtelTracer:
    """Makes the traces of the requests to this router, and sends them by OpenTelemetry. Implements ``Tracer``."""

    def __init__(self, config: TelemetryConfig, application: str = "") -> None:
        self._export = TraceSampler(config, "router", follows=config.follow_caller, application=application)

    def request(self, caller: str | None, state: str = "") -> AbstractContextManager[Trace]:
        try:
            record = self._export.begin(UNNAMED, caller_of(caller, valid_state(state)))
        except Exception as fault:  # noqa: BLE001 - counted and logged; a request goes on without its trace
            self._export.lose(None, fault)
            record = None
        return nullcontext(NoTrace()) if record is None else self._traced(record)

    def close(self) -> None:
        """Sends the spans that have ended, before the process ends."""
        self._export.close()

    @contextmanager
    def _traced(self, record: TraceRecord) -> Iterator[Trace]:
        trace = OtelTrace(record, self._export.draw)
        log_with_trace(lambda: trace.context, record.state)
        error: BaseException | None = None
        try:
            yield trace
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._end(trace, record, error)

    def _end(self, trace: OtelTrace, record: TraceRecord, error: BaseException | None) -> None:
        """Ends the trace of a request, and has it sent if it is kept. Does not raise."""
        try:
            trace.end(error)
            if self._export.end(record):
                self._export.send(record)
        except Exception as fault:  # noqa: BLE001 - counted and logged; the request has its answer
            self._export.lose(record, fault)


class Ending(NamedTuple):
    """The end of a request: the code of its error and the HTTP status, each None if there is none, and whether the
    service is at fault."""

    error: str | None
    status: int | None
    failed: bool


def _ending_of(error: BaseException) -> Ending:
    """Returns how ``error`` ends a request. Never its message, which may quote the request."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit | ClientLeftError):
        return Ending(CANCELLED, None, failed=False)
    if not isinstance(error, Exception):
        return Ending(type(error).__name__, None, failed=True)
    refusal = refusal_of(error)
    failed = refusal.kind in SERVICE_FAULTS and refusal.kind is not RefusalKind.RATE_LIMITED
    return Ending(refusal.code or refusal.kind.value, STATUS[refusal.kind], failed)
