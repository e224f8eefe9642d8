"""``WaitLimit``: how much of its objective a class may be predicted to wait, so that it meets it in fact."""

from __future__ import annotations

FIRST, LEAST, MOST = 0.4, 0.2, 0.9
CUT, STEP = 0.8, 0.0005
"""A miss multiplies the limit by CUT, once per objective; each first token in time adds STEP."""


class WaitLimit:
    """The share of an objective, 0 to 1, up to which a predicted wait is admitted. It rises by addition while
    objectives are met, and falls by multiplication after a miss (AIMD).

    An overloaded tier admits up to the limit, so that most waits are near it: without room for the prediction's error,
    half of them would miss. The error is learnt from the misses.
    """

    def __init__(self) -> None:
        self.share = FIRST
        self._cut_at = float("-inf")

    def observe(self, now: float, waited_s: float, objective_s: float) -> None:
        """Records that the first token of a request with the objective ``objective_s`` came after ``waited_s`` seconds,
        at the instant ``now`` of the monotonic clock."""
        if waited_s <= objective_s:
            self.share = min(MOST, self.share + STEP)
        elif now - self._cut_at >= objective_s:
            self._cut_at = now
            self.share = max(LEAST, CUT * self.share)
