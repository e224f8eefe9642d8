"""``DeltaStream``: the buffer of one request's deltas between its lane and the HTTP response that reads them."""

from __future__ import annotations

import asyncio

from engine.api import Delta
from router.ports.tier_backend import BackendError, SlowReaderError


class DeltaStream:
    """A bounded buffer between a lane and one reader. ``limit`` is in deltas not yet taken.

    ``push`` and ``fail`` never block, so that one slow reader cannot hold up the lane it shares.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer: list[Delta] = []
        self._fault: BackendError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._broken: asyncio.Future[None] | None = None
        self.finished = False  # the last delta was pushed, or the stream failed: the replica holds nothing for it

    def push(self, delta: Delta) -> bool:
        """Add a delta to the buffer. Returns False if the buffer overflows: the caller should abort the request."""
        if self.finished:
            return True
        self._buffer.append(delta)
        self.finished = delta.last
        self._wake()
        if len(self._buffer) > self._limit and not self.finished:
            self.fail(SlowReaderError(f"The client did not read for {self._limit} tokens; the request was ended."))
            return False
        return True

    def fail(self, fault: BackendError) -> None:
        """End the stream with ``fault``, raised by ``take`` once everything before it was taken."""
        if not self.finished:
            self.finished = True
            self._fault = fault
            self._wake()
            if self._broken is not None and not self._broken.done():
                self._broken.set_result(None)

    def broken(self) -> asyncio.Future[None]:
        """A future that is done once the stream has failed."""
        self._broken = asyncio.get_running_loop().create_future()
        if self._fault is not None:
            self._broken.set_result(None)
        return self._broken

    async def take(self) -> list[Delta]:
        """Everything pushed since the last call, at least one delta.

        Raises the fault that ended the stream, if one did.
        """
        while not self._buffer:
            if self._fault is not None:
                raise self._fault
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        taken, self._buffer = self._buffer, []
        return taken

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
