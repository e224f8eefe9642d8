"""``KpaPolicy``: Knative's pod autoscaler on concurrency, with its panic mode.

Knative Serving, pkg/autoscaler/scaling: two averages of concurrency, over a stable window of 60 s and a panic window of
6 s. If the short one asks for twice what is ready, the autoscaler panics: it follows the short window and does not go
down until 60 s have passed without a new reason to panic.
"""

from __future__ import annotations

from collections import deque
from math import ceil

from load_tests.simulation.observation import Observation
from load_tests.simulation.tier import Tier

STABLE_WINDOW_S = 60.0
PANIC_WINDOW_S = 6.0
PANIC_THRESHOLD = 2.0
MAX_UP_RATE, MAX_DOWN_RATE = 1000.0, 2.0


class KpaPolicy:
    """Knative's defaults, with the same target concurrency as for Serve."""

    name = "kpa"
    interval_s = 2.0

    def __init__(self, tier: Tier) -> None:
        self._per_replica = tier.ongoing
        self._samples: deque[tuple[float, int]] = deque()
        self._panic_since: float | None = None
        self._panic_target = 0

    def decide(self, seen: Observation) -> int:
        """Returns the target of the stable window, or of the panic window while in panic."""
        self._samples.append((seen.at, seen.ongoing))
        while self._samples[0][0] < seen.at - STABLE_WINDOW_S:
            self._samples.popleft()
        ready = max(len(seen.ready), 1)
        stable, panic = (self._wanted(seen.at, window, ready) for window in (STABLE_WINDOW_S, PANIC_WINDOW_S))
        if panic / ready >= PANIC_THRESHOLD:
            self._panic_since = seen.at
        elif self._panic_since is not None and seen.at - self._panic_since >= STABLE_WINDOW_S:
            self._panic_since = None
        if self._panic_since is None:
            self._panic_target = 0
            return stable
        self._panic_target = max(self._panic_target, panic, len(seen.ready))
        return self._panic_target

    def _wanted(self, now: float, window: float, ready: int) -> int:
        values = [count for at, count in self._samples if at > now - window]
        wanted = ceil(sum(values) / len(values) / self._per_replica)
        return int(max(min(wanted, ceil(MAX_UP_RATE * ready)), ready / MAX_DOWN_RATE))
