"""``StreamRecorder``: keeps the events of one stream in the store, in batches, behind the stream.

The stream never waits for it. A store that is slow or down fills a bounded buffer; then the recording is given up, and
the stream can no longer be resumed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from router.config.resume import ResumeConfig
from router.ports.clock import Clock
from router.ports.state_store import StateUnavailableError
from router.ports.stream_store import StreamOwner, StreamStore, StreamTerms

logger = logging.getLogger(__name__)

BATCH_S = 0.05  # for which events are gathered before they are written
LEASE_S = 5.0  # after which the router of a stream counts as lost
RENEW_S = 1.0  # between two writes, also without events
RETRY_S = 0.2
MAX_BATCH = 512  # events of one write
MAX_PENDING_BYTES = 1024 * 1024  # that wait to be written


def terms_of(config: ResumeConfig) -> StreamTerms:
    """Returns the terms on which the store keeps streams: times and sizes."""
    return StreamTerms(int(1000 * LEASE_S), int(1000 * config.window_s), config.max_streams, config.max_bytes)


class StreamRecorder:
    """The recorder of one stream. ``run`` writes until ``end``, and if the store cannot be reached then, for at most
    LEASE_S longer, after which the stream counts as lost. ``kept``: the store has the stream, as far as known.
    ``begun`` is set when the store was asked to keep it, with success or without.
    ``last_read_at``: when it was last read from the store, in monotonic seconds; None: not yet."""

    def __init__(
        self, store: StreamStore, owner: StreamOwner, stream_id: str, terms: StreamTerms, clock: Clock
    ) -> None:
        self._store = store
        self._owner = owner
        self._stream_id = stream_id
        self._terms = terms
        self._clock = clock
        self._pending: list[str] = []
        self._pending_bytes = 0
        self._written = 0  # events in the store
        self._ended_at: float | None = None  # in monotonic seconds
        self._changed = asyncio.Event()
        self.begun = asyncio.Event()
        self.kept = True
        self.last_read_at: float | None = None

    def push(self, events: Sequence[str]) -> None:
        """Takes the next events. Does not wait. If more than MAX_PENDING_BYTES wait for the store, gives the recording
        up."""
        if not self.kept:
            return
        self._pending += events
        self._pending_bytes += sum(map(len, events))
        self._changed.set()
        if self._pending_bytes > MAX_PENDING_BYTES:
            self._give_up("the shared state is too slow")

    def end(self) -> None:
        """There are no more events. ``run`` returns when all are written."""
        self._ended_at = self._clock.monotonic()
        self._changed.set()

    async def run(self) -> None:
        """Writes the events until the last one, or until the recording is given up."""
        finished = await self._write()  # a stream is in the store before its first event
        while self.kept and not finished:
            await self._wait()
            finished = await self._write()

    async def _wait(self) -> None:
        """Waits for events, but at most RENEW_S, and then for those that come soon after."""
        try:
            async with asyncio.timeout(RENEW_S):
                await self._changed.wait()
        except TimeoutError:
            return
        if self._ended_at is None:
            await asyncio.sleep(BATCH_S)

    async def _write(self) -> bool:
        """Writes a batch. Returns whether the stream has ended and all of it is written."""
        self._changed.clear()
        batch = self._pending[:MAX_BATCH]
        last = self._ended_at is not None and len(batch) == len(self._pending)
        owner, first = self._owner, self._written + 1
        try:
            read_ms_ago = await self._store.append(
                owner.tenant, self._stream_id, owner.key_id, first, batch, self._terms, ended=last
            )
        except StateUnavailableError as error:
            if self._ended_at is not None and self._clock.monotonic() - self._ended_at > LEASE_S:
                self._give_up(str(error))
            self._changed.set()
            self.begun.set()
            await asyncio.sleep(RETRY_S)
            return False
        self.begun.set()
        if read_ms_ago is None:
            self._give_up("another stream has taken its place, or its time is over")
            return False
        if read_ms_ago >= 0:
            self.last_read_at = self._clock.monotonic() - read_ms_ago / 1000
        del self._pending[: len(batch)]
        self._pending_bytes -= sum(map(len, batch))
        self._written += len(batch)
        if self._pending or (self._ended_at is not None and not last):
            self._changed.set()
        return last

    def _give_up(self, reason: str) -> None:
        if self.kept:
            logger.warning("stream %s can no longer be resumed: %s", self._stream_id, reason)
        self.kept = False
        self._pending, self._pending_bytes = [], 0
        self._changed.set()
