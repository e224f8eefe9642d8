"""``SubmissionBatches``: requests that arrive in one turn of the event loop are submitted in one call.

A call through a Serve handle costs a router about a millisecond of CPU, and the replica half of that. Under load, a
turn of the loop brings several requests. Without load, a request is a batch of its own, and waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cluster.lanes.dataclass_codec import Record

LaneKey = tuple[str, str]
"""The ids of a replica and of a lane from it."""

SubmitAll = Callable[[LaneKey, Sequence[Record]], Awaitable[Sequence[Record | None]]]
"""Submits requests to the replica of a lane. Returns the replica's reply to each; None: it was accepted."""


MAX_BATCH = 16
"""Requests in one call. A replica's event loop takes up to a millisecond for each."""


@dataclass(slots=True)
class _Batch:
    """The requests of a batch, the call that submits them, and how many callers wait for its reply."""

    requests: list[Record]
    sending: asyncio.Task[Sequence[Record | None]]
    waiting: int = 0


class SubmissionBatches:
    """The batches that are being collected, one for each lane. ``submit_all`` submits a batch."""

    def __init__(self, submit_all: SubmitAll) -> None:
        self._submit_all = submit_all
        self._collecting: dict[LaneKey, _Batch] = {}

    async def submit(self, lane: LaneKey, request: Record) -> Record | None:
        """Submits a packed request with the others of this turn. Returns the reply to it; None: it was accepted.

        Raises what ``submit_all`` raises. A caller that is cancelled does not stop the call, unless no other waits for
        it.
        """
        batch = self._collecting.get(lane)
        if batch is None or len(batch.requests) >= MAX_BATCH:
            requests: list[Record] = []
            batch = self._collecting[lane] = _Batch(requests, asyncio.ensure_future(self._send(lane, requests)))
        place = len(batch.requests)
        batch.requests.append(request)
        batch.waiting += 1
        try:
            return (await asyncio.shield(batch.sending))[place]
        finally:
            batch.waiting -= 1
            if not batch.waiting:
                batch.sending.cancel()  # no effect on a call that has ended
                self._end_collection(lane, batch.requests)

    async def _send(self, lane: LaneKey, requests: list[Record]) -> Sequence[Record | None]:
        """Submits a batch. It begins in the next turn of the loop, which ends the collection."""
        self._end_collection(lane, requests)
        return await self._submit_all(lane, requests)

    def _end_collection(self, lane: LaneKey, requests: list[Record]) -> None:
        """Makes the next request begin a batch of its own, if these are the requests of the present one."""
        batch = self._collecting.get(lane)
        if batch is not None and batch.requests is requests:
            del self._collecting[lane]
