"""``ReaderWakeups``: wakes the readers of a router's streams, less often while the event loop is busy.

A reader writes what has arrived to its client in one write, and a write costs the same for one token as for ten. While
the loop keeps up with the engines' steps, readers are woken at once, so that each token is written as it arrives. When
a turn of the loop takes long, the next readers are woken only after a pause of its length: what arrives in the pause is
written together. So a router under load writes fewer and larger parts, instead of falling behind the engines.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

MIN_TURN_S = 0.004
"""A turn of the event loop that is shorter is followed by no pause."""

MAX_PAUSE_S = 0.05
"""The longest pause: readers see no longer gaps between tokens, however long a turn has taken."""


class ReaderWakeups:
    """The readers that wait for deltas, on one event loop. ``clock`` returns seconds, and is read during a turn of the
    loop, whose own clock stands still in it."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._waiting: list[asyncio.Future[None]] = []  # readers that are woken after the pause
        self._began_at: float | None = None  # of the turn that is being measured
        self._pause: asyncio.TimerHandle | None = None

    def wake(self, reader: asyncio.Future[None]) -> None:
        """Sets the result of ``reader``, now or after the pause. A future that is done by then is left alone."""
        if self._pause is not None:
            self._waiting.append(reader)
            return
        if not reader.done():
            reader.set_result(None)
        if self._began_at is None:
            self._began_at = self._clock()
            # Readers run in the next turn. So the one after it begins when all of them have written.
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        asyncio.get_running_loop().call_soon(self._measured)

    def _measured(self) -> None:
        """Begins a pause if the readers' turn has taken long."""
        began_at, self._began_at = self._began_at, None
        turn_s = 0.0 if began_at is None else self._clock() - began_at
        if turn_s >= MIN_TURN_S:
            self._pause = asyncio.get_running_loop().call_later(min(turn_s, MAX_PAUSE_S), self._end_pause)

    def _end_pause(self) -> None:
        self._pause = None
        waiting, self._waiting = self._waiting, []
        for reader in waiting:
            self.wake(reader)
