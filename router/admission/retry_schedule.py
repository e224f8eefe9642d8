"""``RetrySchedule``: when refused clients should come again, so that they do not all come at once."""

from __future__ import annotations

from zlib import crc32

MIN_RETRY_S = 1.0
SPREAD = 0.25
"""The most by which a wait is prolonged, as a share of it, so that clients that were refused together part."""


class RetrySchedule:
    """The schedule by which the refused clients of one class of a tier come again: one after the other, at the rate at
    which the tier starts requests. ``most_s`` is the longest wait, in seconds.

    It keeps the work of the clients that are still to come, not the time of the last one: a request that needs an hour
    delays no other.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._done_at = 0.0  # the instant at which the tier would have started those that were refused

    def place(self, now: float, earliest_s: float, work_s: float, request_id: str) -> float:
        """Returns the seconds after which the client of a refused request should come again.

        ``now`` is an instant in monotonic seconds. The tier is predicted to have room in ``earliest_s`` seconds, and
        the request takes ``work_s`` seconds of the tier's time. A hash of ``request_id`` spreads the clients that would
        come at the same time.
        """
        before_s = max(0.0, self._done_at - now)
        wait = min(max(earliest_s, MIN_RETRY_S) + before_s, self._most_s / (1.0 + SPREAD))
        self._done_at = now + min(before_s + work_s, self._most_s)
        return wait * (1.0 + SPREAD * (crc32(request_id.encode()) % 1024) / 1024)
