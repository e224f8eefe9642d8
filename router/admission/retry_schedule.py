"""``RetrySchedule``: when refused clients should come again, so that they do not all come at once."""

from __future__ import annotations

from zlib import crc32

MIN_RETRY_S = 1.0
SPREAD = 0.25
"""The most by which a wait is prolonged, as a share of it, so that clients that were refused together part."""


class RetrySchedule:
    """The times at which the refused requests of one tier are expected again: as far apart as the tier starts
    requests, after those that were refused before. ``most_s`` is the longest wait, in seconds."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._next = 0.0  # the instant at which the next client should come

    def place(self, now: float, earliest_s: float, work_s: float, request_id: str) -> float:
        """Returns the seconds after which the client of a refused request should come again.

        The tier is predicted to have room in ``earliest_s`` seconds, and the request takes ``work_s`` of its time. A
        hash of ``request_id`` spreads the clients that would come at the same time.
        """
        longest = self._most_s / (1.0 + SPREAD)
        self._next = max(self._next, now + min(max(earliest_s, MIN_RETRY_S), longest))
        wait = min(self._next - now, longest)
        self._next = min(self._next + work_s, now + self._most_s)
        return wait * (1.0 + SPREAD * (crc32(request_id.encode()) % 1024) / 1024)
