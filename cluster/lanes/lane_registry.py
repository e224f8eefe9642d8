"""The replica's end of its lanes: ``LaneRegistry`` maps requests to lanes, ``LaneOutbox`` buffers the rows of one lane.

Deltas arrive once per engine step. Each goes to the outbox of its request's lane. An outbox whose reader is slower than
the engine gathers several steps into its next item, so a slow router costs nothing but its own latency.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from cluster.lanes.codec import Row
from cluster.lanes.messages import is_last


class LaneOutbox:
    """The rows that wait to leave through one lane."""

    def __init__(self, lane_id: str) -> None:
        self.lane_id = lane_id
        self.requests: set[str] = set()
        self._rows: list[Row] = []
        self._waiter: asyncio.Future[None] | None = None

    def put(self, row: Row) -> None:
        """Add a row for the next item."""
        self._rows.append(row)
        self.wake()

    def wake(self) -> None:
        """End ``take``'s wait, rows or not."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self, timeout_s: float) -> list[Row]:
        """The rows gathered since the last call; empty after ``timeout_s`` seconds without any."""
        if not self._rows:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout_s, self.wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        taken, self._rows = self._rows, []
        return taken


class LaneRegistry:
    """All lanes of one replica and the owner of each request."""

    def __init__(self) -> None:
        self._outboxes: dict[str, LaneOutbox] = {}
        self._owners: dict[str, LaneOutbox] = {}  # by request id

    @property
    def requests(self) -> int:
        """Requests that some lane waits for."""
        return len(self._owners)

    def open(self, lane_id: str) -> LaneOutbox:
        """A new lane. Raises ValueError if it is open already."""
        if lane_id in self._outboxes:
            raise ValueError(f"lane {lane_id} is open already")
        outbox = self._outboxes[lane_id] = LaneOutbox(lane_id)
        return outbox

    def close(self, lane_id: str) -> list[str]:
        """Forget a lane; returns its unfinished requests, whose deltas have no reader any more."""
        outbox = self._outboxes.pop(lane_id)
        for request_id in outbox.requests:
            del self._owners[request_id]
        return sorted(outbox.requests)

    def owns(self, lane_id: str, request_id: str) -> bool:
        """Whether the lane is open and waits for the request."""
        outbox = self._owners.get(request_id)
        return outbox is not None and outbox.lane_id == lane_id

    def claim(self, lane_id: str, request_id: str) -> bool:
        """Send the deltas of ``request_id`` to the lane; False if there is no such lane, or the id has an owner."""
        outbox = self._outboxes.get(lane_id)
        if outbox is None or request_id in self._owners:
            return False
        outbox.requests.add(request_id)
        self._owners[request_id] = outbox
        return True

    def release(self, request_id: str) -> None:
        """The request needs no lane any more. Unknown ids are ignored."""
        outbox = self._owners.pop(request_id, None)
        if outbox is not None:
            outbox.requests.discard(request_id)

    def deliver(self, rows: Iterable[Row]) -> None:
        """Hand each row to its lane; rows of requests that have no lane are dropped."""
        for row in rows:
            outbox = self._owners.get(row[0])
            if outbox is None:
                continue
            if is_last(row):
                self.release(row[0])
            outbox.put(row)
