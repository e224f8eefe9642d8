"""``DetachedStream``: an answer that is generated whether its client is connected or not.

::

    bodies of the answer → DetachedStream ┬→ live      → the client that made the request
                                          └→ recorder  → store → StreamReader → a client that resumes, on any router
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress

from router.errors import DeadlineExceededError
from router.ports.clock import Clock
from router.ports.tier_backend import SlowReaderError
from router.resume.stream_recorder import StreamRecorder

logger = logging.getLogger(__name__)

Bodies = AsyncGenerator[Sequence[str], None]
"""The bodies of a stream's events, in batches."""

MAX_UNREAD_BYTES = 4 * 1024 * 1024
"""Of events that wait for the client of the request. A slower one is cut off, and may resume."""
FIRST_WAIT_S = 1.0
"""The longest that the first event waits for the store, which usually has the stream long before. A client that is cut
off until then finds no stream, so a busy store is waited for; one that fails says so at once."""
CHECK_S = 0.5
"""Seconds between two checks whether the stream has a reader."""


class DetachedStream:
    """The answer to one request. ``run`` generates it; ``live`` yields it to the client of the request.

    ``error_of`` writes the body of an error, with which a stream ends that cannot be finished. An answer that has no
    reader for ``window_s`` seconds is aborted. It may take ``timeout_s`` seconds.
    """

    def __init__(
        self,
        bodies: Bodies,
        recorder: StreamRecorder,
        error_of: Callable[[Exception], str],
        clock: Clock,
        window_s: float,
        timeout_s: float,
    ) -> None:
        self._bodies = bodies
        self._recorder = recorder
        self._error_of = error_of
        self._clock = clock
        self._window_s = window_s
        self._timeout_s = timeout_s
        self._unread: list[str] = []
        self._unread_bytes = 0
        self._cut = False  # the client reads too slowly
        self._sent = 0  # events that ``live`` has yielded
        self._left_at: float | None = None  # when the client of the request has left, in monotonic seconds
        self._changed = asyncio.Event()
        self._fault: Exception | None = None
        self._ended = False
        self._stopped = False
        self._generating: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Generates the answer to its end, and waits until all its events are in the store, or the store was given
        up."""
        recording = asyncio.create_task(self._recorder.run())
        self._generating = asyncio.create_task(self._generate())
        if self._stopped:
            self._generating.cancel()
        try:
            while not self._generating.done():
                await asyncio.wait({self._generating}, timeout=CHECK_S)
                if self._abandoned():
                    self.stop()
            if not self._ended:  # it was cancelled before its first step
                await self._bodies.aclose()
                self._end(_stopped_error())
            await recording
        finally:
            recording.cancel()
            self._generating.cancel()

    def stop(self) -> None:
        """Aborts the work in the engine, also before ``run`` has begun. The stream then ends in an error."""
        if not self._stopped and self._generating is not None:
            self._generating.cancel()
        self._stopped = True

    async def live(self) -> AsyncGenerator[tuple[int, Sequence[str]], None]:
        """Yields the number of an event and its body with those that follow, until the end. Closing it leaves the
        answer running. Raises the error that has ended the answer, and SlowReaderError."""
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                events, self._unread, self._unread_bytes = self._unread, [], 0
                first, self._sent = self._sent + 1, self._sent + len(events)
                if first == 1:
                    await self._kept()
                if events:
                    yield first, events
                if self._cut:
                    raise SlowReaderError("The stream is read too slowly. It can be resumed.")
                if self._ended and not self._unread:
                    break
            if self._fault is not None:
                raise self._fault
        finally:
            self._left_at = self._clock.monotonic()
            self._unread, self._unread_bytes = [], 0

    async def _kept(self) -> None:
        """Waits until the store has the stream, at most FIRST_WAIT_S: a client may be cut off by the first event."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WAIT_S):
                await self._recorder.begun.wait()

    async def _generate(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s), aclosing(self._bodies) as batches:
                async for bodies in batches:
                    if bodies:
                        self._push(bodies)
        except Exception as error:  # noqa: BLE001 it ends the stream, and ``live`` raises it
            self._end(error)
        except asyncio.CancelledError:
            self._end(_stopped_error())
        else:
            self._end(None)

    def _end(self, fault: Exception | None) -> None:
        """Ends the stream, with the error that has ended the answer."""
        self._fault = fault
        if fault is not None:
            if self._left_at is not None:
                logger.warning("a stream failed after its client had left: %s", type(fault).__name__)
            self._recorder.push([self._error_of(fault)])
        self._ended = True
        self._recorder.end()
        self._changed.set()

    def _push(self, bodies: Sequence[str]) -> None:
        self._recorder.push(bodies)
        if self._left_at is not None or self._cut:
            return
        self._unread += bodies
        self._unread_bytes += sum(map(len, bodies))
        if self._unread_bytes > MAX_UNREAD_BYTES:
            self._cut, self._unread, self._unread_bytes = True, [], 0
        self._changed.set()

    def _abandoned(self) -> bool:
        """Whether the stream had no reader for the window, or can have none: its client has left and it is not kept."""
        if self._left_at is None:
            return False
        if not self._recorder.kept:
            return True
        last = max(self._left_at, self._recorder.last_read_at or self._left_at)
        return self._clock.monotonic() - last > self._window_s


def _stopped_error() -> DeadlineExceededError:
    return DeadlineExceededError("The request was ended by the server.", "request_cancelled")
