"""``RecentChecks``: how long the classifier has taken lately, for all texts of a policy."""

from __future__ import annotations

REMEMBERED_S = 0.001
"""A check that took less was answered from memory, and says nothing about the classifier."""

FORGOTTEN_S = 10.0
"""After that time without a check, the average says nothing about the present."""

WEIGHT = 0.2  # of the last check in the average


class RecentChecks:
    """A moving average of the durations of checks. Times are in seconds of any monotonic clock.

    A text whose first check was answered from memory cannot know by itself how busy the classifier is.
    """

    def __init__(self) -> None:
        self._mean_s = 0.0
        self._noted_at = 0.0

    def add(self, duration_s: float, now: float) -> None:
        """Notes the duration of a check that ends ``now``, unless it was answered from memory."""
        if duration_s >= REMEMBERED_S:
            usual_s = self.usual_s(now)
            self._mean_s = usual_s + WEIGHT * (duration_s - usual_s) if usual_s else duration_s
            self._noted_at = now

    def usual_s(self, now: float) -> float:
        """Returns how long checks take at present; 0 if there was none lately."""
        return self._mean_s if now - self._noted_at <= FORGOTTEN_S else 0.0
