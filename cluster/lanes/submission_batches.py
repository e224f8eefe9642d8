"""``SubmissionBatches``: requests that arrive in one turn of the event loop are submitted in one call.

A call through a Serve handle costs a router about a millisecond of CPU, and the replica half of that. Under load, a
turn of the loop brings several requests. Without load, a request is a batch of its own, and waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from cluster.lanes.dataclass_codec import Record

LaneKey = tuple[str, str]
"""The ids of a replica and of a lane from it."""

SubmitAll = Callable[[LaneKey, Sequence[Record]], Awaitable[Sequence[Record | None]]]
"""Submits requests to the replica of a lane. Returns the replica's reply to each; None: it was accepted."""


class SubmissionBatches:
    """The batches that are being collected, one for each lane. ``submit_all`` submits a batch."""

    def __init__(self, submit_all: SubmitAll) -> None:
        self._submit_all = submit_all
        self._collecting: dict[LaneKey, tuple[list[Record], asyncio.Task[Sequence[Record | None]]]] = {}

    async def submit(self, lane: LaneKey, request: Record) -> Record | None:
        """Submits a packed request with the others of this turn. Returns the reply to it; None: it was accepted.

        Raises what ``submit_all`` raises. A caller that is cancelled does not stop the call, which others wait for.
        """
        if lane not in self._collecting:
            requests: list[Record] = []
            self._collecting[lane] = requests, asyncio.ensure_future(self._send(lane, requests))
        requests, sending = self._collecting[lane]
        place = len(requests)
        requests.append(request)
        return (await asyncio.shield(sending))[place]

    async def _send(self, lane: LaneKey, requests: Sequence[Record]) -> Sequence[Record | None]:
        """Submits a batch. It begins in the next turn of the loop, which ends the collection."""
        del self._collecting[lane]
        return await self._submit_all(lane, requests)
