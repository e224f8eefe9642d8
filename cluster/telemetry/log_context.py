"""``logged_request``: the request that log lines and calls to other actors belong to, by a context variable.

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
    """A request that runs. ``traceparent`` returns its present span as a W3C traceparent, or "". ``tracestate`` is the
    tracestate that goes with it."""

    request_id: str
    traceparent: Callable[[], str]
    tracestate: str = ""
    ended: bool = False


_CURRENT: ContextVar[LoggedRequest | None] = ContextVar("manta_logged_request", default=None)


@contextmanager
def logged_request(
    request_id: str, traceparent: Callable[[], str] = lambda: "", tracestate: str = ""
) -> Iterator[None]:
    """Marks log lines and calls as those of a request while the context is open, also those of tasks that begin in it.
    ``request_id`` "": it is not known. ``traceparent`` returns the request's present span as a W3C traceparent; "": it
    is not traced. ``tracestate`` is the W3C tracestate that goes with it."""
    request = LoggedRequest(request_id, traceparent, tracestate)
    token = _CURRENT.set(request)
    try:
        yield
    finally:
        request.ended = True
        _CURRENT.reset(token)


def log_with_trace(traceparent: Callable[[], str], tracestate: str = "") -> None:
    """Adds the span to the log lines and calls of the current request, if there is one. The arguments are as in
    ``logged_request``."""
    request = _CURRENT.get()
    if request is not None:
        request.traceparent, request.tracestate = traceparent, tracestate


def trace_headers() -> dict[str, str]:
    """Returns the W3C trace context of the current request by the names of its headers, to be sent along with a call to
    another actor; {} without a trace."""
    request = _CURRENT.get()
    if request is None or request.ended or not (traceparent := request.traceparent()):
        return {}
    headers = {"traceparent": traceparent}
    return headers | {"tracestate": request.tracestate} if request.tracestate else headers


def request_fields() -> dict[str, str]:
    """Returns the fields ``request_id``, ``trace_id`` and ``span_id`` of the current request, those of them that are
    known. Without a request it returns {}."""
    request = _CURRENT.get()
    if request is None or request.ended:
        return {}
    fields = {"request_id": request.request_id} if request.request_id else {}
    parts = request.traceparent().split("-")  # our own routers have written it: nothing else is loaded to read it
    if len(parts) == 4:
        fields |= {"trace_id": parts[1], "span_id": parts[2]}
    return fields
