"""``FixedPolicy``: a capacity profile that is known beforehand. The oracle's, and static deployments."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from load_tests.simulation.observation import Observation


class FixedPolicy:
    """``steps`` are (instant, target) in order of time; the first one's target counts from the start."""

    def __init__(self, steps: Sequence[tuple[float, int]], name: str = "static", interval_s: float = 5.0) -> None:
        self.name = name
        self.interval_s = interval_s
        self._times = [at for at, _ in steps]
        self._targets = [target for _, target in steps]

    def decide(self, seen: Observation) -> int:
        """Returns the target of the last step that has begun."""
        return self._targets[max(bisect_right(self._times, seen.at) - 1, 0)]
