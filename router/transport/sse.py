"""Server-sent events: ``data:`` and a blank line, without event names or ids (WHATWG HTML, 9.2)."""

from __future__ import annotations

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # or nginx and its kin would collect the tokens
]


def event(body: str) -> str:
    """The frame around ``body``, which has no line breaks."""
    return f"data: {body}\n\n"
