"""``Clock``: the port for the time, so that tests can use a virtual clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """The wall clock and the monotonic clock of one machine."""

    def now(self) -> float:
        """Returns the wall time in seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Returns the monotonic time in seconds since an unspecified start. It never decreases."""
        ...


class SystemClock:
    """The clocks of this machine. Implements ``Clock``."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
