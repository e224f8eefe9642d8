"""One HTTP exchange in raw ASGI: the body read within a limit, answers sent whole or as a stream, leaving noticed.

Raw, because this is the hot path: a streaming answer costs one ``send`` per batch of deltas and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

from starlette.types import Receive, Scope, Send

from router.openai.errors import ApiError, BodyTooLargeError, InvalidRequestError
from router.request_id import request_id
from router.transport.sse import HEADERS, event

LAST_WORDS_S = 1.0  # how long a failed request may spend on telling its client
LENGTH = re.compile(r"[0-9]{1,18}")


class ClientLeftError(Exception):
    """The client closed the connection; there is nobody to answer."""


class Exchange:
    """A request and its response. ``headers`` are added to whatever is answered."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._offered = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        self.request_id = request_id(self.header("x-request-id"))
        self.headers: list[tuple[bytes, bytes]] = [(b"x-request-id", self.request_id.encode())]
        self.started = False  # the status line has left
        self.streaming = False

    def header(self, name: str) -> str | None:
        """The first header of that (lower-case) name."""
        return self._offered.get(name.encode())

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises BodyTooLargeError as soon as it is known to exceed ``limit`` bytes."""
        declared = self.header("content-length") or "0"
        if not LENGTH.fullmatch(declared):
            raise InvalidRequestError("The header content-length is not a number.", "invalid_header")
        too_large = BodyTooLargeError(f"The body of the request exceeds {limit} bytes.", "body_too_large")
        if int(declared) > limit:
            raise too_large
        received, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            size += len(chunk := message.get("body", b""))
            if size > limit:
                raise too_large
            received.append(chunk)
            if not message.get("more_body", False):
                return b"".join(received)

    async def while_connected(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work``; cancel it and raise ClientLeftError when the client leaves first."""
        working = asyncio.ensure_future(work)
        watching = asyncio.ensure_future(self._disconnect())
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
        finally:
            watching.cancel()
            if not working.done():
                working.cancel()
                await asyncio.wait({working})
                if not working.cancelled():
                    working.exception()  # seen: why it was cut comes first
        raise ClientLeftError

    async def answer(self, status: int, document: Any) -> None:
        """Send ``document`` as JSON."""
        await self._answer(status, json.dumps(document).encode(), [])

    async def fail(self, error: ApiError) -> None:
        """Send ``error``: as the whole answer, or as the last frame of a stream that has begun.

        A task of its own, with little time: whoever calls may be cancelled already, and a client that has stopped
        reading must not hold its request's place for ever.
        """
        telling = asyncio.ensure_future(self._tell(error))
        await asyncio.wait({telling}, timeout=LAST_WORDS_S)
        if not telling.done():
            telling.cancel()
        elif (fault := telling.exception()) is not None:
            raise fault

    async def _tell(self, error: ApiError) -> None:
        if not self.started:
            await self._answer(error.status, error.body(), error.headers())
        elif self.streaming:
            await self._send({"type": "http.response.body", "body": event(error.body())})

    async def stream(self, frames: AsyncGenerator[bytes, None]) -> None:
        """Send ``frames`` as an event stream. The status waits for the first frame: until then an error has its own."""
        async with aclosing(frames):
            async for frame in frames:
                if not self.started:
                    await self._start(200, HEADERS)
                    self.streaming = True
                await self._send({"type": "http.response.body", "body": frame, "more_body": True})
        self.streaming = False
        await self._send({"type": "http.response.body", "body": b""})

    async def _disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _answer(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self._start(status, [(b"content-type", b"application/json"), length, *headers])
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *self.headers]})
