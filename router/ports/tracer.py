"""``Tracer``: the port to traces. A request has a trace of the stages that it passes, over router and replica.

Nothing of a prompt or an answer may be given to it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

from router.ports.trace_names import Attribute, EventName, SpanName

T = TypeVar("T")

Value = str | int | float | bool | tuple[str, ...]
Attributes = Callable[[], Mapping[Attribute, Value | None]]
"""Returns attributes by name. None: there is no such attribute."""


class Trace(Protocol):
    """The trace of one request. No method raises; after the end of the request none has an effect."""

    def belongs_to(self, tenant: str) -> None:
        """Says whose request it is, once that is known. Called before ``context`` is sent along with any call: the
        tenant decides with which share the trace is kept."""
        ...

    def enter(self, room: SpanName) -> None:
        """Begins the span of a stage of the request, such as authentication, and ends that of the stage before."""
        ...

    def describe(self, attributes: Mapping[Attribute, Value | None]) -> None:
        """Sets attributes of the span of the whole request, which has failed if ERROR is one. None: there is no such
        attribute."""
        ...

    def event(self, name: EventName, attributes: Attributes, weight: int = 0) -> None:
        """Adds an event, with the time of now, to the span of the current stage. ``attributes`` is called at the end of
        the request, if its trace is kept. If there are too many of a name, those with the most ``weight`` are kept."""
        ...

    def began(self, *, status_sent: bool, held: bool) -> None:
        """Says that the first events of an answer are there. ``status_sent``: it is a stream, and has the status of
        success, which an error does not change any more. ``held``: moderation holds its text back."""
        ...

    def released(self) -> None:
        """Says that moderation has released the first text of an answer that it held back."""
        ...

    def fails(self, error: Exception) -> None:
        """Says that the request ends by ``error``, which it is cancelled for, such as a TimeoutError."""
        ...

    def around(self, name: SpanName, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Returns ``items`` within a span ``name``, which ends when they do. Its parent is the span of the current
        stage."""
        ...

    @property
    def context(self) -> str:
        """The current span as a W3C traceparent, to be sent along with calls to other processes; "" if the request is
        not traced."""
        ...

    @property
    def state(self) -> str:
        """The W3C tracestate that the request came with, to be sent along with ``context``; "" if there is none."""
        ...


class Tracer(Protocol):
    """The traces of one router."""

    def request(self, caller: str | None, state: str = "") -> AbstractContextManager[Trace]:
        """Returns the trace of a request, which ends with the context. ``caller`` is the W3C traceparent that it came
        with; None, or one that is malformed: it begins here. ``state`` is the W3C tracestate beside it, which is
        dropped if it is malformed or too long, and with a malformed traceparent."""
        ...


class NoTrace:
    """Traces nothing. Implements ``Trace``."""

    context = ""
    state = ""

    def belongs_to(self, tenant: str) -> None:
        pass

    def enter(self, room: SpanName) -> None:
        pass

    def describe(self, attributes: Mapping[Attribute, Value | None]) -> None:
        pass

    def event(self, name: EventName, attributes: Attributes, weight: int = 0) -> None:
        pass

    def began(self, *, status_sent: bool, held: bool) -> None:
        pass

    def released(self) -> None:
        pass

    def fails(self, error: Exception) -> None:
        pass

    def around(self, name: SpanName, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        return items


class NoTracer:
    """Traces nothing. Implements ``Tracer``."""

    def request(self, caller: str | None, state: str = "") -> AbstractContextManager[Trace]:
        return nullcontext(NoTrace())
