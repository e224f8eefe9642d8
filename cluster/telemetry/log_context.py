"""``logged_request``: the request that log lines belong to, by a context variable.

A task that outlives its request keeps a copy of the context in which it began. So a request is marked when it has
ended, and no later line carries its id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class LoggedRequest:
    """A request that runs. ``traceparent`` returns its present span as a W3C traceparent, or ""."""

    request_id: str
    traceparent: Callable[[], str]
    ended: bool = False


_CURRENT: ContextVar[LoggedRequest | None] = ContextVar("manta_logged_request", default=None)


@contextmanager
def logged_request(request_id: str, traceparent: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Marks log lines as those of a request while the context is open, also the lines of tasks that begin in it.
    ``traceparent`` returns the request's present span as a W3C traceparent; "": it is not traced."""
    request = LoggedRequest(request_id, traceparent)
    token = _CURRENT.set(request)
    try:
        yield
    finally:
        request.ended = True
        _CURRENT.reset(token)


def log_with_trace(traceparent: Callable[[], str]) -> None:
    """Adds the span to the log lines of the current request, if there is one. ``traceparent`` is as in
    ``logged_request``."""
    request = _CURRENT.get()
    if request is not None:
        request.traceparent = traceparent


def request_fields() -> dict[str, str]:
    """Returns the fields ``request_id``, ``trace_id`` and ``span_id`` of the current request. Without a request it
    returns {}; without a trace, ``request_id`` alone."""
    request = _CURRENT.get()
    if request is None or request.ended:
        return {}
    fields = {"request_id": request.request_id}
    parts = request.traceparent().split("-")  # our own routers have written it: nothing else is loaded to read it
    if len(parts) == 4:
        fields |= {"trace_id": parts[1], "span_id": parts[2]}
    return fields
