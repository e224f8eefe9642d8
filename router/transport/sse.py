"""Server-sent events as OpenAI sends them: ``data:`` and a blank line, with no event names or ids."""

from __future__ import annotations

DONE = b"data: [DONE]\n\n"
"""The last frame of a stream that ended well; one that failed ends with an error instead."""

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # or nginx and its kin would collect the tokens
]


def event(body: bytes) -> bytes:
    """A frame around ``body``, which is JSON on one line."""
    return b"data: " + body + b"\n\n"
