"""``KedaPolicy``: a KEDA ScaledObject over a Kubernetes HPA, with two triggers of practice.

Queue length with an AverageValue threshold, and KV cache use (llm-d's workload variant autoscaler, issue 1517, gives
60 %). KEDA asks for the highest of its triggers. The HPA takes steps of its default behaviour: up by the greater of
100 % and 4 every 15 s, down to the highest wish of the last 300 s.
"""

from __future__ import annotations

from collections import deque
from math import ceil

from load_tests.simulation.observation import Observation
from load_tests.simulation.tier import Tier

QUEUE_THRESHOLD = 5  # waiting requests per replica: the threshold that vLLM's production stack shows
KV_THRESHOLD = 0.6
TOLERANCE = 0.1  # the HPA's
STABILISATION_S = 300.0


class KedaPolicy:
    """One decision each HPA sync period."""

    name = "keda"
    interval_s = 15.0

    def __init__(self, tier: Tier) -> None:
        self._kv_tokens = tier.profile.kv_tokens
        self._wishes: deque[tuple[float, int]] = deque()

    def decide(self, seen: Observation) -> int:
        """Returns the HPA's next number of replicas."""
        used = sum(each.kv_reserved for each in seen.ready) / self._kv_tokens
        wish = max(_desired(seen.target, seen.waiting, QUEUE_THRESHOLD), _desired(seen.target, used, KV_THRESHOLD), 1)
        self._wishes.append((seen.at, wish))
        while self._wishes[0][0] < seen.at - STABILISATION_S:
            self._wishes.popleft()
        if wish > seen.target:
            return min(wish, seen.target + max(seen.target, 4))
        return min(max(number for _, number in self._wishes), seen.target)


def _desired(target: int, total: float, threshold: float) -> int:
    """The HPA's formula for an external metric with an AverageValue: no change within the tolerance."""
    return target if abs(total / (threshold * max(target, 1)) - 1) <= TOLERANCE else ceil(total / threshold)
