"""``BusyCounter``: counts the requests of a follower's replica, and how long its process was busy."""

from __future__ import annotations

import time
from collections.abc import Callable

from cluster.autoscaling.busy_report import BusyCounts


class BusyCounter:
    """Counts the requests of this process. It is made once what serves has been loaded, since that time is no work of
    a request. ``busy_clock`` returns the busy seconds of the process, from any start."""

    def __init__(self, busy_clock: Callable[[], float] = time.process_time) -> None:
        self._busy_clock = busy_clock
        self._start_s = busy_clock()
        self._requests = 0

    def count(self) -> None:
        """Counts a request."""
        self._requests += 1

    def numbers(self) -> dict[str, float]:
        """Returns the counts as numbers by name, as Serve carries them to its controller (``busy_report``)."""
        return BusyCounts(self._requests, self._busy_clock() - self._start_s).numbers()
