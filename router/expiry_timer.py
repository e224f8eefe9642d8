"""``ExpiryTimer``: has a store in memory delete what is over, also if the store is not called again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

INTERVAL_S = 1.0
"""Seconds between two looks, so what is over is kept for at most that much longer. Redis does the same by itself."""


class ExpiryTimer:
    """Calls ``expire`` every INTERVAL_S seconds from ``arm`` on, for as long as it returns that something is left."""

    def __init__(self, expire: Callable[[], bool]) -> None:
        self._expire = expire
        self._handle: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        """Starts the timer on the running event loop, unless it runs."""
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(INTERVAL_S, self._run)

    def cancel(self) -> None:
        """Stops the timer."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self) -> None:
        self._handle = None
        if self._expire():
            self.arm()
