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
    """Lines that are logged within it, also by tasks that begin there, belong to this request until it ends."""
    request = LoggedRequest(request_id, traceparent)
    token = _CURRENT.set(request)
    try:
        yield
    finally:
        request.ended = True
        _CURRENT.reset(token)


def log_with_trace(traceparent: Callable[[], str]) -> None:
    """Has the lines of the current request, if there is one, name its span too."""
    request = _CURRENT.get()
    if request is not None:
        request.traceparent = traceparent


def request_fields() -> dict[str, str]:
    """Returns ``request_id``, ``trace_id`` and ``span_id`` of the current request, as far as there are such."""
    request = _CURRENT.get()
    if request is None or request.ended:
        return {}
    fields = {"request_id": request.request_id}
    parts = request.traceparent().split("-")  # our own routers have written it: nothing else is loaded to read it
    if len(parts) == 4:
        fields |= {"trace_id": parts[1], "span_id": parts[2]}
    return fields
