"""``RecentChecks``: how long the classifier has taken lately, for all texts of a policy."""

from __future__ import annotations

REMEMBERED_S = 0.001
"""A check that took less was answered from memory, and says nothing about the classifier."""

WEIGHT = 0.2  # of the last check in the average


class RecentChecks:
    """A moving average of the durations of checks. ``usual_s`` is in seconds; 0 before the first check.

    A text whose first check was answered from memory cannot know by itself how busy the classifier is.
    """

    def __init__(self) -> None:
        self.usual_s = 0.0

    def add(self, duration_s: float) -> None:
        """Notes the duration of a check, unless it was answered from memory."""
        if duration_s >= REMEMBERED_S:
            self.usual_s += WEIGHT * (duration_s - self.usual_s) if self.usual_s else duration_s
