"""The framing of SSE events (WHATWG HTML, 9.2): ``data:`` and a blank line, without event names. Events of streams that
can be resumed have ids."""

from __future__ import annotations

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # keeps nginx and similar proxies from buffering the stream
]


def event(body: str, event_id: str = "") -> str:
    """Returns ``body`` as an SSE event, with an id unless that is "". Neither may have line breaks."""
    return f"id: {event_id}\ndata: {body}\n\n" if event_id else f"data: {body}\n\n"
