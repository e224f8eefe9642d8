"""``RetrySchedule``: when refused clients should come again, so that they do not all come at once."""

from __future__ import annotations

from zlib import crc32

MIN_RETRY_S = 1.0
SPREAD = 0.25
"""The most by which a wait is prolonged, as a share of it, so that clients that were refused together part."""


class RetrySchedule:
    """The times at which the refused requests of one class of a tier are expected again: as far apart as the tier
    starts requests, after those that were refused before. ``most_s`` is the longest wait, in seconds.

    What is kept is the work of those that are still to come, not the time of the last one: a request that needs an hour
    delays no other.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._done_at = 0.0  # the instant at which the tier would have started those that were refused

    def place(self, now: float, earliest_s: float, work_s: float, request_id: str) -> float:
        """Returns the seconds after which the client of a refused request should come again.

        The tier is predicted to have room in ``earliest_s`` seconds, and the request takes ``work_s`` of its time. A
        hash of ``request_id`` spreads the clients that would come at the same time.
        """
        before_s = max(0.0, self._done_at - now)
        wait = min(max(earliest_s, MIN_RETRY_S) + before_s, self._most_s / (1.0 + SPREAD))
        self._done_at = now + min(before_s + work_s, self._most_s)
        return wait * (1.0 + SPREAD * (crc32(request_id.encode()) % 1024) / 1024)
