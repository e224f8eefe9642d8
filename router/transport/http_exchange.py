"""``HttpExchange``: one HTTP request and its response over ASGI, independent of the wire format.

It reads the body within a limit, sends whole responses and SSE streams, and notices when the client disconnects. It
uses ASGI without a framework because this is the hot path: a stream costs one ``send`` for each batch of events.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from router.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    PayloadTooLargeError,
    RefusalError,
    RefusalKind,
    UnsupportedMediaTypeError,
)
from router.request_id import request_id
from router.transport.content_coding import ACCEPTED, coding_of, decoded
from router.transport.keep_alive import COMMENT_LINE, KeepAlive
from router.transport.sse import HEADERS, event

T = TypeVar("T")

MAX_PARAMETERS = 64  # of a query
BODY_TIMEOUT_S = 30.0
ERROR_TIMEOUT_S = 1.0  # the longest that sending an error may take
LENGTH = re.compile(r"[0-9]{1,18}")

STATUS: Mapping[RefusalKind, int] = {
    RefusalKind.INVALID_REQUEST: 400,
    RefusalKind.UNAUTHENTICATED: 401,
    RefusalKind.PERMISSION_DENIED: 403,
    RefusalKind.NOT_FOUND: 404,
    RefusalKind.METHOD_NOT_ALLOWED: 405,
    RefusalKind.DEADLINE_EXCEEDED: 408,
    RefusalKind.CONFLICT: 409,
    RefusalKind.GONE: 410,
    RefusalKind.PAYLOAD_TOO_LARGE: 413,
    RefusalKind.UNSUPPORTED_MEDIA_TYPE: 415,
    RefusalKind.UNPROCESSABLE: 422,
    RefusalKind.RATE_LIMITED: 429,
    RefusalKind.INTERNAL: 500,
    RefusalKind.UNAVAILABLE: 503,
}
"""The HTTP status of each kind of refusal."""


class ClientLeftError(Exception):
    """The client closed the connection, so that no response can be sent."""


class HttpExchange:
    """One HTTP request and its response.

    ``headers`` are added to every response, errors included. So are the headers that ``late_headers`` returns, which is
    called when the status line is sent, and dropped then. ``started``: the status line was sent. ``streaming``: an SSE
    stream is open.
    ``body_timeout_s``: the seconds that the body may take to arrive.
    ``keep_alive_s``: the seconds of silence of an open stream after which a comment is sent; None: none is.
    ``outlives`` is called when the client leaves, or the server ends the request: it takes the work over and returns
    True, or returns False. It is dropped when the work has ended.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        body_timeout_s: float = BODY_TIMEOUT_S,
        keep_alive_s: float | None = None,
    ) -> None:
        self._body_timeout_s = body_timeout_s
        self._receive = receive
        self._send = send
        self._keep_alive = KeepAlive(keep_alive_s, send)
        self._scope_headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self._offered = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        self._query: bytes = scope.get("query_string", b"")
        self.request_id = request_id(self.header("x-request-id"))
        self.headers: list[tuple[bytes, bytes]] = [(b"x-request-id", self.request_id.encode())]
        self.late_headers: Callable[[], list[tuple[bytes, bytes]]] = list
        self.started = False
        self.streaming = False
        self.outlives: Callable[[asyncio.Future[Any]], bool] = _ends
        self._left = False
        self._received = asyncio.Event()  # whether the whole body was received

    def header(self, name: str) -> str | None:
        """Returns the value of the first header with the lower-case ``name``; None if there is none."""
        return self._offered.get(name.encode())

    def joined(self, name: str) -> str:
        """Returns the values of all headers with the lower-case ``name``, joined by commas; "" if there is none. For
        headers that are lists, which HTTP may send in parts."""
        sought = name.encode()
        if sought not in self._offered:
            return ""
        return ",".join(value.decode("latin-1") for each, value in self._scope_headers if each == sought)

    def parameters(self) -> dict[str, str]:
        """Returns the parameters of the query by name; values of one name are joined by commas.

        Raises InvalidRequestError for more than MAX_PARAMETERS.
        """
        try:
            pairs = parse_qsl(self._query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
        except ValueError:
            raise InvalidRequestError("The query has too many parameters.", "invalid_query") from None
        found: dict[str, str] = {}
        for name, value in pairs:
            found[name] = f"{found[name]},{value}" if name in found else value
        return found

    async def body(self, limit: int) -> bytes:
        """Receives and returns the whole body, as it was before its content coding. May be called once.

        Raises PayloadTooLargeError as soon as the body is known to exceed ``limit`` bytes, also decoded,
        InvalidRequestError for a malformed content-length and for a body that cannot be decoded,
        UnsupportedMediaTypeError for an unknown coding, DeadlineExceededError if it takes longer than
        ``body_timeout_s``, and ClientLeftError if the client disconnects.
        """
        coding = self._content_coding()
        declared = self.header("content-length") or "0"
        if not LENGTH.fullmatch(declared):
            raise InvalidRequestError("The header content-length is not a number.", "invalid_header")
        if int(declared) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(self._body_timeout_s):
                body = await self._receive_body(limit)
        except TimeoutError:
            self.headers.append((b"connection", b"close"))  # the rest of the body is not waited for either
            message = f"The body of the request did not arrive within {self._body_timeout_s:g} s."
            raise DeadlineExceededError(message, "body_timeout") from None
        return await asyncio.to_thread(decoded, body, limit) if body and coding else body

    def _content_coding(self) -> str:
        """Returns the content coding of the body; "": it has none. Raises UnsupportedMediaTypeError for one that the
        service does not decode; the response then names those that it does."""
        try:
            return coding_of(self.joined("content-encoding"))
        except UnsupportedMediaTypeError:
            self.headers.append((b"accept-encoding", ACCEPTED.encode()))
            raise

    async def _receive_body(self, limit: int) -> bytes:
        """Receives and returns the whole body. Raises PayloadTooLargeError beyond ``limit`` bytes, and
        ClientLeftError."""
        received, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            size += len(chunk := message.get("body", b""))
            if size > limit:
                raise _too_large(limit)
            received.append(chunk)
            if not message.get("more_body", False):
                self._received.set()
                return b"".join(received)

    async def while_connected(self, work: Awaitable[T]) -> T:
        """Runs ``work``, which must receive the body first. Returns its result, or raises its error. If the client
        disconnects before ``work`` ends, cancels ``work`` unless it ``outlives`` the client, and raises
        ClientLeftError. What such work sends is dropped."""
        working = asyncio.ensure_future(work)
        watching: asyncio.Future[None] | None = None
        try:
            await asyncio.sleep(0)  # what is refused at once has ended then, and needs no watch
            if not working.done():
                watching = asyncio.ensure_future(self._disconnect())
                await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
        finally:
            if watching is not None:
                watching.cancel()
            if not working.done():
                self._left = self.outlives(working)
                self._keep_alive.end()
            if not (working.done() or self._left):
                working.cancel()
                await asyncio.wait({working})
                if not working.cancelled():
                    working.exception()  # retrieved, so that asyncio does not log it; another error is being raised
            self.outlives = _ends
            del working  # else its error and this frame, which is in the error's traceback, would hold each other
        self.late_headers = list  # as in ``_start``; nothing is sent to this client any more
        raise ClientLeftError

    async def answer(self, status: int, document: Any) -> None:
        """Sends a whole response with ``document`` as JSON. Raises the errors of the ASGI ``send``."""
        await self.answer_text(status, json.dumps(document))

    async def answer_text(self, status: int, body: str, media_type: str = "application/json") -> None:
        """Sends a whole response."""
        if self._left:
            return
        await self._answer(status, body.encode(), [], media_type)

    async def answer_empty(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Sends a response without a body, status 204, with ``headers``."""
        await self._start(204, headers)
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, refusal: RefusalError, body: str) -> None:
        """Sends ``body``, the error body of ``refusal``, as the whole response or as the last SSE event of a stream.

        Nothing is sent if a whole response was already begun. A separate task sends, since the caller may be cancelled
        already. The task is cancelled after ERROR_TIMEOUT_S seconds, so that a client that has stopped reading does not
        occupy the router's concurrency limit. Raises the errors of the ASGI ``send``.
        """
        sending = asyncio.ensure_future(self._send_error(refusal, body))
        await asyncio.sleep(0)  # mostly it has sent everything then
        if not sending.done():
            await asyncio.wait({sending}, timeout=ERROR_TIMEOUT_S)
        if not sending.done():
            sending.cancel()
            return
        try:
            sending.result()
        finally:
            del sending  # as in ``while_connected``

    async def _send_error(self, refusal: RefusalError, body: str) -> None:
        if not self.started:
            await self._answer(STATUS[refusal.kind], body.encode(), _headers(refusal))
        elif self.streaming:
            await self._send({"type": "http.response.body", "body": event(body).encode()})

    async def stream(self, batches: AsyncIterable[T], bodies_of: Callable[[T], list[str]]) -> None:
        """Sends each batch in one write, with one SSE event for each body that ``bodies_of`` returns for the batch.

        The status line is sent with the first write, so that an error before it still sets the HTTP status.
        """
        try:
            async for batch in batches:
                if not self._left and (bodies := bodies_of(batch)):
                    await self._send_frames("".join(map(event, bodies)))
        finally:
            self._keep_alive.end()
        await self._end_stream()

    async def stream_numbered(self, parts: AsyncIterable[tuple[int, Sequence[str]]]) -> None:
        """Sends each part in one write: the number of its first event, and the bodies of its events. Each SSE event has
        its number as ``id``, from which a client can resume.

        The status line is sent with the first part, which may have no events.
        """
        self._keep_alive.comment = COMMENT_LINE
        try:
            async for first, bodies in parts:
                await self._send_frames("".join(map(event, bodies, map(str, count(first)))))
        finally:
            self._keep_alive.end()
        await self._end_stream()

    async def _send_frames(self, frames: str) -> None:
        """Sends SSE events, after the status line."""
        if not self.started:
            await self._start(200, HEADERS)
            self.streaming = True
            self._keep_alive.begin()
        if frames:
            self._keep_alive.silent = False
            await self._send({"type": "http.response.body", "body": frames.encode(), "more_body": True})

    async def _end_stream(self) -> None:
        if self._left:
            return
        if not self.started:  # nothing was sent
            await self._start(200, HEADERS)
        self.streaming = False
        await self._send({"type": "http.response.body", "body": b""})

    async def _disconnect(self) -> None:
        """Returns when the client has disconnected, once the body was received."""
        await self._received.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _answer(
        self, status: int, body: bytes, headers: list[tuple[bytes, bytes]], media_type: str = "application/json"
    ) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self._start(status, [(b"content-type", media_type.encode()), length, *headers])
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        sent = [*headers, *self.headers, *self.late_headers()]
        self.late_headers = list  # they hold the request, which holds this exchange
        await self._send({"type": "http.response.start", "status": status, "headers": sent})


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"The body of the request exceeds {limit} bytes.", "body_too_large")


def _ends(working: asyncio.Future[Any]) -> bool:
    """Says that the work of a request ends with it."""
    return False


def _headers(refusal: RefusalError) -> list[tuple[bytes, bytes]]:
    """Returns the headers ``retry-after``, ``retry-after-ms``, ``x-should-retry`` and ``www-authenticate``, where
    ``refusal`` needs them."""
    headers: list[tuple[bytes, bytes]] = []
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(refusal.retry_after_s))).encode()))
        headers.append((b"retry-after-ms", str(math.ceil(refusal.retry_after_s * 1000)).encode()))
    if refusal.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if refusal.should_retry else b"false"))
    if refusal.kind is RefusalKind.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers
