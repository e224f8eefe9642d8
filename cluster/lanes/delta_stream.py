"""``DeltaStream``: the buffer of one request's deltas between its lane and the HTTP response."""

from __future__ import annotations

import asyncio

from cluster.lanes.reader_wakeups import ReaderWakeups
from engine.api import Delta, Usage
from router.ports.tier_backend import BackendError, SlowReaderError


class DeltaStream:
    """The bounded buffer between a lane and the reader of one request. It holds at most ``limit`` unread deltas.
    ``wakeups`` are those of all streams of the event loop; None: the stream has its own.

    ``push`` and ``fail`` never block, so that a slow reader does not delay the other requests of its lane. ``finished``
    is True once the last delta was pushed or the stream has failed; the replica then has nothing left to do for it.
    ``usage`` has the token counts in the last delta, also if that arrives after the stream has failed. ``began`` is
    True once a delta was pushed.
    """

    def __init__(self, limit: int, wakeups: ReaderWakeups | None = None) -> None:
        self._limit = limit
        self._wakeups = wakeups or ReaderWakeups()
        self._buffer: list[Delta] = []
        self._fault: BackendError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._begun: asyncio.Future[None] | None = None
        self._waking = False  # a reader waits, and will be woken
        self.began = False
        self.finished = False
        self.usage: Usage | None = None

    def push(self, delta: Delta) -> bool:
        """Adds a delta to the buffer. Returns True, unless the buffer overflows.

        If it overflows, returns False; what arrives while the reader waits to be woken does not count. The stream then
        fails with SlowReaderError, and the caller should abort the request. Deltas after the end are ignored, except
        for the token counts in the last one, which follows the abort.
        """
        if self.finished:
            self.usage = self.usage or delta.usage
            return True
        self._buffer.append(delta)
        self.began = True
        self.finished = delta.last
        self.usage = delta.usage
        self._begin()
        self._wake()
        if len(self._buffer) > self._limit and not (self.finished or self._waking):
            self.fail(SlowReaderError(f"The client did not read for {self._limit} tokens; the request was ended."))
            return False
        return True

    def fail(self, fault: BackendError) -> None:
        """Ends the stream. ``take`` raises ``fault`` after the buffered deltas. A finished stream does not change."""
        if not self.finished:
            self.finished = True
            self._fault = fault
            self._begin()
            self._wake()

    def begun(self) -> asyncio.Future[None]:
        """Returns a future that is done once the stream has a delta or has failed. May be called once."""
        begun = self._begun = asyncio.get_running_loop().create_future()
        if self._buffer or self._fault is not None:
            self._begin()
        return begun

    async def take(self) -> list[Delta]:
        """Waits for deltas, removes all unread ones from the buffer and returns them in order, at least one.

        Raises the BackendError with which the stream failed, once its buffer is empty. Must not be called after the
        last delta.
        """
        while not self._buffer:
            if self._fault is not None:
                raise self._fault
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
                self._waking = False
        taken, self._buffer = self._buffer, []
        return taken

    def _begin(self) -> None:
        if self._begun is not None:
            if not self._begun.done():
                self._begun.set_result(None)
            self._begun = None

    def _wake(self) -> None:
        if self._waiter is not None:
            waiter, self._waiter, self._waking = self._waiter, None, True
            self._wakeups.wake(waiter)
