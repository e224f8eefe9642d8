"""The replica's end of its lanes: ``LaneRegistry`` maps requests to lanes, ``LaneOutbox`` buffers the rows of one lane.

The engine yields deltas once per step. Each goes, as a row, to the outbox of its request's lane. If a router reads more
slowly than the engine steps, the next item of its lane holds the rows of several steps. So a slow router delays nothing
but its own requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from cluster.lanes.codec import Row
from cluster.lanes.messages import is_last


class LaneOutbox:
    """The send buffer of one lane. ``requests`` are the ids of the unfinished requests whose rows go there."""

    def __init__(self, lane_id: str) -> None:
        self.lane_id = lane_id
        self.requests: set[str] = set()
        self._rows: list[Row] = []
        self._waiter: asyncio.Future[None] | None = None

    def put(self, row: Row) -> None:
        """Adds a row to the buffer and wakes a waiting ``take``. The row goes out with the lane's next item."""
        self._rows.append(row)
        self.wake()

    def wake(self) -> None:
        """Makes a waiting ``take`` return, even without rows."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self, timeout_s: float) -> list[Row]:
        """Waits for rows, removes all from the buffer and returns them in order; none after ``timeout_s`` seconds or
        ``wake``."""
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
    """The open lanes of one replica, and the lane that each unfinished request belongs to."""

    def __init__(self) -> None:
        self._outboxes: dict[str, LaneOutbox] = {}
        self._owners: dict[str, LaneOutbox] = {}  # by request id

    @property
    def requests(self) -> int:
        """The number of unfinished requests, over all lanes."""
        return len(self._owners)

    def open(self, lane_id: str) -> LaneOutbox:
        """Opens a lane and returns its outbox. Raises ValueError if the lane is open already."""
        if lane_id in self._outboxes:
            raise ValueError(f"lane {lane_id} is open already")
        outbox = self._outboxes[lane_id] = LaneOutbox(lane_id)
        return outbox

    def close(self, lane_id: str) -> list[str]:
        """Closes a lane and forgets its unfinished requests. Returns their ids, sorted; the caller should abort them.
        Raises KeyError if the lane is not open."""
        outbox = self._outboxes.pop(lane_id)
        for request_id in outbox.requests:
            del self._owners[request_id]
        return sorted(outbox.requests)

    def owns(self, lane_id: str, request_id: str) -> bool:
        """Returns whether the request is unfinished and belongs to the lane, which is then open."""
        outbox = self._owners.get(request_id)
        return outbox is not None and outbox.lane_id == lane_id

    def claim(self, lane_id: str, request_id: str) -> bool:
        """Assigns a new request to the lane, which gets its rows from now on. Returns True.

        Returns False, and changes nothing, if the lane is not open or the id belongs to a lane already.
        """
        outbox = self._outboxes.get(lane_id)
        if outbox is None or request_id in self._owners:
            return False
        outbox.requests.add(request_id)
        self._owners[request_id] = outbox
        return True

    def release(self, request_id: str) -> None:
        """Removes a request from its lane. Its further rows are dropped. Unknown ids are ignored."""
        outbox = self._owners.pop(request_id, None)
        if outbox is not None:
            outbox.requests.discard(request_id)

    def deliver(self, rows: Iterable[Row]) -> None:
        """Puts each row into the outbox of its request's lane. Rows of requests without a lane are dropped.

        A request is removed from its lane with its last row.
        """
        for row in rows:
            outbox = self._owners.get(row[0])
            if outbox is None:
                continue
            if is_last(row):
                self.release(row[0])
            outbox.put(row)
