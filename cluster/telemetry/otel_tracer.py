"""``OtelTracer``: the routers' traces, by OpenTelemetry. Implements ``Tracer``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from typing import TypeVar

from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.span_maker import SpanMaker, received, within
from router.errors import refusal_of
from router.ports.trace_names import Attribute, EventName, SpanName
from router.ports.tracer import NoTrace, Trace, Value

T = TypeVar("T")

UNNAMED = "request"
"""The name of a request's span until its model is known."""
CANCELLED = "cancelled"


class OtelTrace:
    """The trace of one request. Implements ``Trace``."""

    def __init__(self, maker: SpanMaker, caller: str | None) -> None:
        self._maker = maker
        self._root = maker.begin(UNNAMED, received(caller), SpanKind.SERVER)
        self._room: Span | None = None

    def enter(self, room: SpanName) -> None:
        if self._room is not None:
            self._room.end()
        self._room = self._maker.begin(room.value, within(self._root))

    def describe(self, attributes: Mapping[Attribute, Value | None]) -> None:
        if not self._root.is_recording():  # the counts of a cancelled request may come after its end
            return
        for name, value in attributes.items():
            if value is not None:
                self._root.set_attribute(name.value, value)
        if Attribute.OPERATION in attributes:
            self._root.update_name(f"{attributes[Attribute.OPERATION]} {attributes.get(Attribute.REQUEST_MODEL)}")

    def event(self, name: EventName, attributes: Mapping[Attribute, Value]) -> None:
        span = self._room or self._root
        if span.is_recording():
            span.add_event(name.value, {key.value: value for key, value in attributes.items()})

    async def around(self, name: SpanName, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        span = self._maker.begin(name.value, within(self._room or self._root))
        try:
            async with aclosing(items):
                async for item in items:
                    yield item
        finally:
            span.end()

    @property
    def context(self) -> str:
        return self._maker.traceparent(self._room or self._root)

    def end(self, error: BaseException | None) -> None:
        """Ends the trace. The room in which ``error`` was raised has failed, and so has the request."""
        kind = None if error is None else _kind_of(error)
        for span in (self._room, self._root):
            if span is None:
                continue
            if kind is not None:
                span.set_attribute(Attribute.ERROR.value, kind)
            if kind not in (None, CANCELLED):
                span.set_status(Status(StatusCode.ERROR))
            span.end()


class OtelTracer:
    """The traces of this router. Implements ``Tracer``."""

    def __init__(self, config: TelemetryConfig) -> None:
        self._maker = SpanMaker(config, "router")

    def request(self, caller: str | None) -> AbstractContextManager[Trace]:
        return nullcontext(NoTrace()) if self._maker.kept.full else self._traced(caller)

    @contextmanager
    def _traced(self, caller: str | None) -> Iterator[Trace]:
        trace = OtelTrace(self._maker, caller)
        error: BaseException | None = None
        try:
            yield trace
        except BaseException as raised:
            error = raised
            raise
        finally:
            trace.end(error)

    def close(self) -> None:
        """Exports what has ended."""
        self._maker.close()


def _kind_of(error: BaseException) -> str:
    """Returns the code by which the client knows an error. Never its message, which may quote the request."""
    if isinstance(error, asyncio.CancelledError):
        return CANCELLED
    if not isinstance(error, Exception):
        return type(error).__name__
    refusal = refusal_of(error)
    return refusal.code or refusal.kind.value
