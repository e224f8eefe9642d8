"""``ServeDefaultPolicy``: Ray Serve's own autoscaling, by ongoing requests per replica.

Ray Serve 2.60, ``replica_queue_length_autoscaling_policy``: the wanted number is the mean of all ongoing requests over
``look_back_period_s``, by the target. It takes effect once it has been wanted without a break for the delay of its
direction.
"""

from __future__ import annotations

from collections import deque
from math import ceil

from load_tests.simulation.observation import Observation
from load_tests.simulation.tier import Tier


class ServeDefaultPolicy:
    """Defaults of AutoscalingConfig but for ``target_ongoing_requests``, which Serve asks operators to measure."""

    name = "serve"
    interval_s = 1.0

    def __init__(
        self, tier: Tier, *, upscale_delay_s: float = 30, downscale_delay_s: float = 600, look_back_s: float = 30
    ) -> None:
        self._bounds = tier.replicas_min, tier.replicas_max
        self.target_ongoing = tier.ongoing
        self._delays = upscale_delay_s, downscale_delay_s
        self._look_back_s = look_back_s
        self._samples: deque[tuple[float, int]] = deque()
        self._wanted_since: tuple[int, float] | None = None  # direction, instant

    def decide(self, seen: Observation) -> int:
        """Returns the target after the delays."""
        self._samples.append((seen.at, seen.ongoing))
        while self._samples[0][0] < seen.at - self._look_back_s:
            self._samples.popleft()
        ongoing = sum(count for _, count in self._samples) / len(self._samples)
        # Serve divides by running replicas and multiplies by them again.
        low, high = self._bounds
        wanted = min(max(ceil(ongoing / self.target_ongoing), low), high)
        direction = (wanted > seen.target) - (wanted < seen.target)
        if not direction:
            self._wanted_since = None
            return seen.target
        if self._wanted_since is None or self._wanted_since[0] != direction:
            self._wanted_since = direction, seen.at
        if seen.at - self._wanted_since[1] < self._delays[direction < 0]:
            return seen.target
        self._wanted_since = None
        return wanted
