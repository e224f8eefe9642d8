"""``KeepAlive``: comments on an SSE stream that has nothing to send for a while.

Proxies and load balancers close connections on which nothing has come for a minute or so. A stream can be silent for
longer: while the model thinks and the client does not want its reasoning, while another replica is awaited, or while
answers are checked as a whole. Clients skip comments (WHATWG HTML, 9.2.6).
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import Send

COMMENT = b": keep-alive\n\n"
"""With a blank line: a client that splits a stream at blank lines takes no event for part of the comment."""
COMMENT_LINE = b": keep-alive\n"
"""For events with ids: OpenAI's Python library takes a blank line after an id for an event without data, and fails."""


class KeepAlive:
    """Sends ``comment`` by the ASGI ``send`` after each ``interval_s`` seconds in which nothing else was sent; None:
    never. Its owner sets ``silent`` to False with each event, which is all that it costs a busy stream."""

    def __init__(self, interval_s: float | None, send: Send) -> None:
        self._interval_s = interval_s
        self._send = send
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self.comment = COMMENT
        self.silent = True

    def begin(self) -> None:
        """Begins, once the status line was sent. The caller calls ``end`` before the last message."""
        if self._interval_s is not None:
            self.silent = True
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._elapsed)

    def end(self) -> None:
        """Sends no more comments. May be called at any time, and again."""
        for each in (self._timer, self._sending):
            if each is not None:
                each.cancel()
        self._timer = self._sending = None

    def _elapsed(self) -> None:
        """Sends a comment if nothing was sent in the interval. To a client that does not read, only one is on its
        way."""
        if self.silent and (self._sending is None or self._sending.done()):
            self._sending = asyncio.ensure_future(self._comment())
        self.begin()

    async def _comment(self) -> None:
        with contextlib.suppress(OSError):  # the client has left, which the next event or the server tells
            await self._send({"type": "http.response.body", "body": self.comment, "more_body": True})
