"""The framing of SSE events (WHATWG HTML, 9.2): ``data:`` and a blank line, without event names or ids."""

from __future__ import annotations

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # keeps nginx and similar proxies from buffering the stream
]


def event(body: str) -> str:
    """Returns ``body`` as an SSE event. ``body`` must not have line breaks."""
    return f"data: {body}\n\n"
