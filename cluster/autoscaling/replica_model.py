"""``ReplicaModel``: how fast a replica is, learnt from its tier's own measurements.

A decode step of ``n`` sequences takes ``step_s + n * request_s`` seconds: reading the weights, and the work for each
sequence. Each request also takes ``prompt / prefill_tokens_per_s`` seconds of prefill. In balance, a replica with ``r``
requests per second therefore has an inter-token latency of ``step_s / (1 - busy)``, where ``busy`` is
``r * (prompt / prefill_tokens_per_s + output * request_s)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import log2

from cluster.autoscaling.flow import Flow

MAX_CHANGE = 2.0
"""A measurement counts as at most this many times what was learnt, and at least as the reciprocal."""

WEIGHT = 0.05
"""Of a measurement in what is learnt."""

MIN_BUSY_LIMIT = 0.2
"""Of a replica's time, even if no replica can meet the objective."""


@dataclass(frozen=True, slots=True)
class ReplicaModel:
    """What one replica of a tier is capable of. 0: unknown, and not counted."""

    prefill_tokens_per_s: float = 0.0
    step_s: float = 0.0
    request_s: float = 0.0

    @property
    def known(self) -> bool:
        """Whether anything was measured."""
        return self.prefill_tokens_per_s > 0 or self.step_s > 0 or self.request_s > 0

    def prefill_s(self, tokens: float) -> float:
        """Returns the seconds of one replica that ``tokens`` prompt tokens take."""
        return tokens / self.prefill_tokens_per_s if self.prefill_tokens_per_s else 0.0

    def work_s(self, prompt_tokens: float, output_tokens: float) -> float:
        """Returns the seconds of one replica that a request of these lengths takes beside the steps' fixed costs."""
        return self.prefill_s(prompt_tokens) + output_tokens * self.request_s

    def busy_limit(self, itl_s: float) -> float:
        """Returns the part of a replica's time that may be busy so that the mean inter-token latency is ``itl_s``."""
        return min(1.0, max(MIN_BUSY_LIMIT, 1.0 - self.step_s / itl_s))

    def replicas(self, flow: Flow, itl_s: float) -> float:
        """Returns the replicas that the mean of ``flow`` keeps busy to the limit. A fraction."""
        return flow.rate * self.work_s(flow.prompt_tokens, flow.output_tokens) / self.busy_limit(itl_s)

    def itl_s(self, busy: float) -> float:
        """Returns the mean inter-token latency in balance; infinity if ``busy`` is 1 or more and steps take time."""
        if not self.step_s:
            return 0.0
        return self.step_s / (1.0 - busy) if busy < 1 else float("inf")

    def step(self, sequences: float) -> float:
        """Returns the seconds of a decode step of ``sequences``."""
        return self.step_s + sequences * self.request_s


@dataclass(frozen=True, slots=True)
class ReplicaMeasurements:
    """What was learnt of the replicas of a tier: the prefill rate, and steps by the power of 2 of their batch, as
    (batch, seconds)."""

    prefill_tokens_per_s: float = 0.0
    steps: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    def with_prefill(self, tokens_per_s: float) -> ReplicaMeasurements:
        """Returns the measurements with one more of the prefill rate. 0: there is none."""
        if tokens_per_s <= 0:
            return self
        return replace(self, prefill_tokens_per_s=_learnt(self.prefill_tokens_per_s, tokens_per_s))

    def with_step(self, batch: float, seconds: float) -> ReplicaMeasurements:
        """Returns the measurements with one more of a decode step. 0: there is none."""
        if batch <= 0 or seconds <= 0:
            return self
        bucket = min(15, max(0, round(log2(max(1.0, batch)))))
        old_batch, old_seconds = self.steps.get(bucket, (0.0, 0.0))
        learnt = (_learnt(old_batch, batch), _learnt(old_seconds, seconds))
        return replace(self, steps={**self.steps, bucket: learnt})

    def model(self) -> ReplicaModel:
        """Returns the model that fits the measurements, steps by least squares. With steps of one batch size only, the
        whole step counts as its fixed cost."""
        if not self.steps:
            return ReplicaModel(self.prefill_tokens_per_s)
        points = list(self.steps.values())
        mean_batch = sum(batch for batch, _ in points) / len(points)
        mean_s = sum(seconds for _, seconds in points) / len(points)
        spread = sum((batch - mean_batch) ** 2 for batch, _ in points)
        slope = sum((batch - mean_batch) * (s - mean_s) for batch, s in points) / spread if spread else 0.0
        slope = min(max(0.0, slope), mean_s / mean_batch)
        return ReplicaModel(self.prefill_tokens_per_s, mean_s - slope * mean_batch, slope)


def _learnt(old: float, new: float) -> float:
    """Returns the average moved towards ``new``, whose distance is limited first. ``new`` itself if there was none."""
    if not old:
        return new
    return old + WEIGHT * (min(MAX_CHANGE * old, max(old / MAX_CHANGE, new)) - old)
