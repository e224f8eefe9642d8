"""``TimedTracer``: a tracer that also measures the stages of each request, by the calls that make their spans.

``router.ports.stage_metrics`` says what ends a stage.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TypeVar

from router.ports.stage_metrics import STREAM, Took
from router.ports.trace_names import Attribute, EventName, SpanName
from router.ports.tracer import Attributes, Trace, Tracer, Value
from router.stage_clock import StageClock

T = TypeVar("T")


class TimedTracer:
    """Traces as ``tracer`` does, and calls ``took`` for each stage of each request, traced or not. ``now`` returns an
    instant in seconds that never decreases. Implements ``Tracer``."""

    def __init__(self, tracer: Tracer, took: Took, now: Callable[[], float]) -> None:
        self._tracer = tracer
        self._took = took
        self._now = now

    def request(self, caller: str | None, state: str = "") -> AbstractContextManager[Trace]:
        return TimedRequest(self._tracer.request(caller, state), StageClock(self._took, self._now))


class TimedRequest(AbstractContextManager[Trace]):
    """One request: its last stage ends with this context. It is a class, since ``contextmanager`` takes longer than all
    stages together."""

    __slots__ = ("_stages", "_traced")

    def __init__(self, traced: AbstractContextManager[Trace], stages: StageClock) -> None:
        self._traced = traced
        self._stages = stages

    def __enter__(self) -> Trace:
        return TimedTrace(self._traced.__enter__(), self._stages)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._stages.end()
        return self._traced.__exit__(kind, error, traceback)


class TimedTrace:
    """The trace of one request, and its stages. Implements ``Trace``."""

    __slots__ = ("_stages", "_trace")

    def __init__(self, trace: Trace, stages: StageClock) -> None:
        self._trace = trace
        self._stages = stages

    def belongs_to(self, tenant: str) -> None:
        self._trace.belongs_to(tenant)

    def enter(self, room: SpanName) -> None:
        self._stages.enter(room)
        self._trace.enter(room)

    def describe(self, attributes: Mapping[Attribute, Value | None]) -> None:
        self._trace.describe(attributes)

    def event(self, name: EventName, attributes: Attributes, weight: int = 0) -> None:
        self._trace.event(name, attributes, weight)

    def began(self, *, status_sent: bool, held: bool) -> None:
        self._stages.enter(SpanName.MODERATE if held else STREAM)
        self._trace.began(status_sent=status_sent, held=held)

    def released(self) -> None:
        self._stages.enter(STREAM)
        self._trace.released()

    def fails(self, error: Exception) -> None:
        self._trace.fails(error)

    def around(self, name: SpanName, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        return self._trace.around(name, items)

    @property
    def context(self) -> str:
        return self._trace.context

    @property
    def state(self) -> str:
        return self._trace.state
