"""``SuspectRequests``: has the requests that may have killed a replica begin one after the other.

A request that got nothing before its replica died may be what killed it, and so may any other of its kind there. Were
they to begin together on the next replica, the one that kills it too could not be distinguished from the others. So
each has its turn until it has got something, which clears it; the replica that dies in between was killed by the one
whose turn it was, and the rest have not been sent yet.

Requests that were in the middle of their answers are suspects too if they were few. Many of them would wait too long
for each other, and it is most likely that none of them has killed the replica.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from types import TracebackType

from router.ports.tier_backend import ReplicaLostError

TURN_S = 2.0
"""The longest turn, in seconds. A request that waits in the queue of a busy replica does not hold the others up."""
ALL_S = 6.0
"""Seconds within which all that wait have had their turn, so that many of them have shorter turns."""
APART_S = 0.1
"""Seconds between the losses of two replicas from which on the second one is put down to the request whose turn it was.
Replicas of one node that fails die at the same time."""
FEW = 8
"""The most requests of a lost replica that are all suspects."""
_REMEMBERED = 64
"""Lost replicas whose requests are counted."""


async def at_once() -> None:
    """Returns at once: the turn waits for nothing."""


class Turn:
    """The turn of one request: a context that begins when no other has its turn and ``can_begin`` has returned, and
    ends with it, by ``end``, or when its time is over. ``broken``: its replica was lost in the turn, and no request
    whose time was over before could be the cause as well."""

    def __init__(self, suspects: SuspectRequests, can_begin: Callable[[], Awaitable[object]]) -> None:
        self.broken = False
        self._suspects = suspects
        self._can_begin = can_begin
        self._timer: asyncio.TimerHandle | None = None  # None: the turn has not begun, or is over
        self._expired = False  # its time is over, and the request has got nothing yet
        self._doubtful = False  # such requests were there when it began

    async def __aenter__(self) -> Turn:
        seconds = await self._suspects.begin()
        try:
            await self._can_begin()
        except BaseException:  # the client has left: the next one may begin
            self._suspects.end()
            raise
        self._doubtful = self._suspects.expired > 0
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        in_turn = self._timer is not None and not self._doubtful
        self.broken = in_turn and isinstance(error, ReplicaLostError)
        self.end()

    def end(self) -> None:
        """Ends the turn. May be called again, without effect."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._suspects.end()
        if self._expired:
            self._expired = False
            self._suspects.expired -= 1

    def _expire(self) -> None:
        """Ends the turn, since its time is over."""
        self.end()
        self._expired = True
        self._suspects.expired += 1


class SuspectRequests:
    """The queue of the requests of one tier that may have killed a replica, in one router. A turn lasts at most
    ``turn_s`` seconds, and those of all that wait at the same time ``all_s`` seconds together. ``apart_s`` is as
    APART_S."""

    def __init__(self, turn_s: float = TURN_S, all_s: float = ALL_S, apart_s: float = APART_S) -> None:
        self.apart_s = apart_s
        self.expired = 0  # requests whose turn was over before they had got anything, and that have got nothing yet
        self._turn_s, self._all_s = turn_s, all_s
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._crowd = 0  # the most that have waited since the queue was last empty
        self._lost: OrderedDict[str, int] = OrderedDict()  # requests that each lost replica had, longest ago first

    def lost(self, replica_id: str) -> None:
        """Counts a request that was on a replica when it was lost."""
        self._lost[replica_id] = self._lost.pop(replica_id, 0) + 1
        if len(self._lost) > _REMEMBERED:
            self._lost.popitem(last=False)

    def are_few(self, replica_id: str) -> bool:
        """Returns whether so few requests were on a lost replica that all of them are suspects."""
        return self._lost.get(replica_id, 0) <= FEW

    def turn(self, can_begin: Callable[[], Awaitable[object]] = at_once) -> Turn:
        """Returns the turn of one more request. It has not begun yet. ``can_begin`` is awaited before its time runs,
        while it holds all others up: without a replica all would have had their turns before there is one, and would
        begin on it together."""
        return Turn(self, can_begin)

    async def begin(self) -> float:
        """Waits until a turn begins. Returns the seconds that it may last. Called by a ``Turn`` alone."""
        self._waiting += 1
        self._crowd = max(self._crowd, self._waiting)
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        seconds = min(self._turn_s, self._all_s / self._crowd)
        if not self._waiting:
            self._crowd = 0
        return seconds

    def end(self) -> None:
        """Lets the next turn begin. Called by a ``Turn`` alone, once."""
        self._lock.release()
