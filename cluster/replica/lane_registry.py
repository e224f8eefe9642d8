"""The replica's end of its lanes: ``LaneRegistry`` maps requests to lanes, ``LaneOutbox`` buffers the rows of one lane.

The engine yields deltas once per step. Each goes, as a row, to the outbox of its request's lane. If a router reads more
slowly than the engine steps, the next item of its lane holds the rows of several steps. So a slow router delays nothing
but its own requests.

A lane that ends may have belonged to a router that was killed, which has written no ledger entries for its last
requests. Their accounts and the engine's counts then go to another router, as soon as one has a lane. So do those of
requests that have ended shortly before: their router may have died before it wrote them, and the ledger ignores an
entry that it already has.

During a rollout, some routers may be of a release that ignores such accounts. One that sends accounts with its own
requests reads those of others. Where no open lane has brought an account yet, all lanes get them: the ledger adds each
once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable

from cluster.lanes.dataclass_codec import Row
from cluster.lanes.lane_messages import Orphan, is_last, usage_in

ENDED_S = 60.0  # after the end of a request, for which its account is kept: a client may read the answer slowly
MAX_ENDED = 2000  # requests of one lane whose accounts are kept after their end
MAX_HOMELESS = 10_000  # ended requests that wait for a lane


class LaneOutbox:
    """The send buffer of one lane. ``requests`` maps the id of each unfinished request of the lane to its account.
    ``brings_accounts``: at least one request had an account, so the lane's router is of a release that reads
    accounts."""

    def __init__(self, lane_id: str) -> None:
        self.lane_id = lane_id
        self.requests: dict[str, str] = {}
        self.brings_accounts = False
        self._rows: list[Row] = []
        self._orphans: list[Orphan] = []
        self._ended: deque[tuple[float, Orphan]] = deque(maxlen=MAX_ENDED)  # with the monotonic time of each end
        self._waiter: asyncio.Future[None] | None = None

    def end(self, orphan: Orphan) -> None:
        """Keeps the account of a request that has ended for a while, in case the lane's router dies."""
        self._ended.append((time.monotonic(), orphan))

    def give(self, orphans: Iterable[Orphan]) -> None:
        """Adds ended requests whose own lane has ended. They are sent with the next item."""
        self._orphans += orphans
        self.wake()

    def take_orphans(self) -> list[Orphan]:
        """Removes and returns the requests whose lane has ended. If this lane ends too, ``unreported`` still has
        them."""
        taken, self._orphans = self._orphans, []
        for orphan in taken:
            self.end(orphan)
        return taken

    @property
    def unreported(self) -> list[Orphan]:
        """The requests that ended within the last ENDED_S seconds, and may not be in the ledger yet."""
        first = time.monotonic() - ENDED_S
        return [*(orphan for at, orphan in self._ended if at >= first), *self._orphans]

    def put(self, row: Row) -> None:
        """Adds a row to the buffer of the lane, and wakes the call of ``take`` that waits for one. ``take`` returns all
        buffered rows, which go to the router as one item."""
        self._rows.append(row)
        self.wake()

    def wake(self) -> None:
        """Makes a waiting ``take`` return, even without rows."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self, timeout_s: float) -> list[Row]:
        """Waits for rows, removes all from the buffer and returns them in order. Returns [] after ``timeout_s`` seconds
        or ``wake``."""
        if not (self._rows or self._orphans):
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
        self._orphaned: dict[str, str] = {}  # accounts of unfinished requests whose lane has ended, by request id
        self._homeless: deque[Orphan] = deque(maxlen=MAX_HOMELESS)

    @property
    def requests(self) -> int:
        """The number of unfinished requests in all lanes."""
        return len(self._owners)

    @property
    def lanes(self) -> int:
        """The number of open lanes: one for each router."""
        return len(self._outboxes)

    def open(self, lane_id: str) -> LaneOutbox:
        """Opens a lane and returns its outbox. Raises ValueError if the lane is open already."""
        if lane_id in self._outboxes:
            raise ValueError(f"lane {lane_id} is open already")
        outbox = self._outboxes[lane_id] = LaneOutbox(lane_id)
        outbox.give(self._homeless)
        self._homeless.clear()
        return outbox

    def close(self, lane_id: str) -> list[str]:
        """Closes a lane and removes its unfinished requests. Returns their ids, sorted; the caller should abort them.
        Raises KeyError if the lane is not open."""
        outbox = self._outboxes.pop(lane_id)
        for request_id, account in outbox.requests.items():
            del self._owners[request_id]
            if account:
                self._orphaned[request_id] = account
        self._hand_over(outbox.unreported)
        return sorted(outbox.requests)

    def owns(self, lane_id: str, request_id: str) -> bool:
        """Returns whether the request is unfinished and belongs to the lane, which is then open."""
        outbox = self._owners.get(request_id)
        return outbox is not None and outbox.lane_id == lane_id

    def claim(self, lane_id: str, request_id: str, account: str = "") -> bool:
        """Assigns a new request to the lane, which gets the request's rows from now on, and returns True. ``account``
        is as in ``TierBackend.generate``.

        Returns False, and changes nothing, if the lane is not open or the id belongs to a lane already.
        """
        outbox = self._outboxes.get(lane_id)
        if outbox is None or request_id in self._owners:
            return False
        outbox.requests[request_id] = account
        outbox.brings_accounts = outbox.brings_accounts or bool(account)
        self._owners[request_id] = outbox
        return True

    def release(self, request_id: str) -> None:
        """Removes a request from its lane. The request's further rows are dropped. Unknown ids are ignored."""
        outbox = self._owners.pop(request_id, None)
        if outbox is not None:
            del outbox.requests[request_id]
        self._orphaned.pop(request_id, None)

    def deliver(self, rows: Iterable[Row]) -> None:
        """Puts each row into the outbox of its request's lane. Rows of requests without a lane are dropped, except for
        the token counts in their last rows, which other routers get.

        A request is removed from its lane with its last row.
        """
        for row in rows:
            outbox = self._owners.get(row[0])
            if is_last(row):
                self._end(row, outbox)
            if outbox is not None:
                outbox.put(row)

    def _end(self, row: Row, outbox: LaneOutbox | None) -> None:
        """Removes the request of a last row from its lane. Keeps its account and its counts, or passes them on if its
        lane has ended."""
        request_id, usage = row[0], usage_in(row)
        account = self._orphaned.get(request_id, "") if outbox is None else outbox.requests[request_id]
        self.release(request_id)
        if not account or usage is None:
            return
        orphan = (request_id, account, usage)
        if outbox is None:
            self._hand_over([orphan])
        else:
            outbox.end(orphan)

    def _hand_over(self, orphans: Iterable[Orphan]) -> None:
        """Gives ended requests to a lane whose router reads them, or keeps them until there is a lane."""
        if not self._outboxes:
            self._homeless.extend(orphans)
            return
        given = list(orphans)
        readers = [outbox for outbox in self._outboxes.values() if outbox.brings_accounts]
        for outbox in readers[:1] or self._outboxes.values():
            outbox.give(given)
