"""``BlockedRate``: counts the recently blocked requests of each API key and its users."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

MAX_SUBJECTS = 10_000  # the one blocked longest ago makes room
MAX_TIMES = 1000  # remembered of each


class BlockedRate:
    """Counts blocked requests by subject. ``now`` is a clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._times: OrderedDict[tuple[str, ...], deque[float]] = OrderedDict()

    def add(self, subject: tuple[str, ...]) -> None:
        """Counts a request of ``subject``, such as a tenant and a key, that is blocked now."""
        self._times.setdefault(subject, deque(maxlen=MAX_TIMES)).append(self._now())
        self._times.move_to_end(subject)
        if len(self._times) > MAX_SUBJECTS:
            self._times.popitem(last=False)

    def count(self, subject: tuple[str, ...], window_s: float) -> int:
        """Returns the number of requests of ``subject`` that were blocked in the last ``window_s`` seconds."""
        since = self._now() - window_s
        return sum(at > since for at in self._times.get(subject, ()))
