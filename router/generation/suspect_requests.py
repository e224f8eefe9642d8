"""``SuspectRequests``: has the requests that may have killed a replica begin one after the other.

A request that got nothing before its replica died may be what killed it, and so may any other of its kind there. Were
they to begin together on the next replica, the one that kills it too could not be distinguished from the others. So
each has its turn until it has got something, which clears it; the replica that dies in between was killed by the one
whose turn it was, and the rest have not been sent yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TURN_S = 0.25
"""The longest turn, in seconds. A request that waits in the queue of a busy replica does not hold the others up."""
ALL_S = 2.0
"""Seconds within which all that wait have had their turn, so that many of them have shorter turns."""


class SuspectRequests:
    """The queue of the requests of one tier that may have killed a replica, in one router. A turn lasts at most
    ``turn_s`` seconds, and those of all that wait at the same time ``all_s`` seconds together."""

    def __init__(self, turn_s: float = TURN_S, all_s: float = ALL_S) -> None:
        self._turn_s, self._all_s = turn_s, all_s
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._crowd = 0  # the most that have waited since the queue was last empty

    async def turn(self) -> Callable[[], None]:
        """Waits for the turn of the caller, which lasts until the result is called, or its time is over. The result may
        be called more than once."""
        self._waiting += 1
        self._crowd = max(self._crowd, self._waiting)
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        seconds = min(self._turn_s, self._all_s / self._crowd)
        if not self._waiting:
            self._crowd = 0
        held = True

        def end() -> None:
            nonlocal held
            if held:
                held = False
                timer.cancel()
                self._lock.release()

        timer = asyncio.get_running_loop().call_later(seconds, end)
        return end
