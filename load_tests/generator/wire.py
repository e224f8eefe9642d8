"""The least HTTP/1.1 that measures well: one socket, one request at a time, bodies kept as they came.

While bytes arrive, only their time and count are noted; chunks are taken apart once the response is complete. That
keeps the generator's own CPU out of the times that it measures.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from dataclasses import dataclass, field

HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
MAX_BYTES = 64 * 2**20  # of one response; a server that never ends must not fill the memory


class BrokenResponseError(Exception):
    """The connection ended, or what came is no HTTP. ``started``: some bytes of the response had come."""

    def __init__(self, message: str, started: bool) -> None:
        super().__init__(message)
        self.started = started


@dataclass(slots=True)
class Response:
    """A complete response: its body in the pieces that the server sent, each with its time of arrival."""

    status: int
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    keep_alive: bool = True

    @property
    def body(self) -> bytes:
        """The pieces end to end."""
        return b"".join(piece for _, piece in self.pieces)


class Connection(asyncio.Protocol):
    """One client connection. ``exchange`` sends a request and waits for the whole response."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._received = bytearray()
        self._marks: list[tuple[int, float]] = []  # (bytes received by then, time)
        self._body_at = 0  # where the body starts; 0 while the head is incomplete
        self._length: int | None = None  # of the body; None when chunked
        self._closed = False

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return not self._closed and self._waiter is None

    async def exchange(self, request: bytes) -> Response:
        """Raises BrokenResponseError if the connection ends first."""
        if self._transport is None or self._closed:
            raise BrokenResponseError("the connection is closed", started=False)
        self._received.clear()
        self._marks.clear()
        self._body_at, self._length = 0, None
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(request)
            await self._waiter
            response = self._response()
        finally:
            self._waiter = None
        if not response.keep_alive:
            self.close()
        return response

    def close(self) -> None:
        """Hangs up at once; also in the middle of a response."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._marks.append((len(self._received), time.perf_counter()))
        if len(self._received) > MAX_BYTES:
            self._fail("the response is too long")
        elif self._complete():
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._fail(f"the connection ended early{f': {exc}' if exc else ''}")

    def _complete(self) -> bool:
        if not self._body_at:
            end = self._received.find(HEAD_END)
            if end < 0:
                return False
            self._body_at = end + len(HEAD_END)
            self._length = content_length(bytes(self._received[:end]))
        if self._length is not None:
            return len(self._received) - self._body_at >= self._length
        # Any other end cannot be the last one; taking chunks apart here would cost as much as the whole measurement.
        if not self._received.endswith(LAST_CHUNK):
            return False
        return split_chunks(self._received, self._body_at) is not None

    def _finish(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, message: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(BrokenResponseError(message, started=bool(self._received)))

    def _response(self) -> Response:
        head = bytes(self._received[: self._body_at])
        ends = split_chunks(self._received, self._body_at) if self._length is None else None
        if ends is None:
            ends = [(self._body_at, len(self._received))]
        sizes = [size for size, _ in self._marks]
        pieces = [(self._marks[bisect_left(sizes, end)][1], bytes(self._received[start:end])) for start, end in ends]
        keep_alive = not self._closed and b"connection: close" not in head.lower()
        return Response(status_of(head), pieces, keep_alive)


def status_of(head: bytes) -> int:
    """The status code of a response head. Raises BrokenResponseError if it is no HTTP/1.x head."""
    parts = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        raise BrokenResponseError("the response is not HTTP/1.x", started=True)
    return int(parts[1])


def content_length(head: bytes) -> int | None:
    """The Content-Length of a response head; None when the body is chunked; 0 when neither is said."""
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        return None
    value = fields.get(b"content-length", b"0").strip()
    return int(value) if value.isdigit() else 0


def split_chunks(received: bytes | bytearray, position: int) -> list[tuple[int, int]] | None:
    """Where the chunks of a chunked body lie, as (start, end); None while the last one is missing or malformed."""
    chunks: list[tuple[int, int]] = []
    while True:
        line_end = received.find(b"\r\n", position)
        if line_end < 0:
            return None
        try:
            size = int(received[position:line_end].split(b";", 1)[0], 16)
        except ValueError:
            return None
        start = line_end + 2
        if len(received) < start + size + 2:
            return None
        if size == 0:
            return chunks
        chunks.append((start, start + size))
        position = start + size + 2
