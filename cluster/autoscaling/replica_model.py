"""``ReplicaModel``: a model of a replica's speed, fitted to its tier's own measurements.

A decode step of ``n`` sequences takes ``step_s + n * request_s`` seconds: reading the weights, and the work for each
sequence. A request also takes the seconds of its prompt's prefill, less the time to read the weights in steps that run
anyway. Both together are its ``work``. In equilibrium, a replica with ``r`` requests per second therefore has an
inter-token latency of ``step_s / (1 - r * work)``, and by Little's law as many sequences as ``r * output`` times that
latency, which its KV cache limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import log2

from cluster.autoscaling.arrival_rate import ArrivalRate

PLAUSIBLE = 1.5
"""A measurement is plausible if it is at most this many times what was learnt, and at least the reciprocal."""

WEIGHT, IMPLAUSIBLE_WEIGHT = 0.05, 0.002
"""Of a second of plausible measurements in what is learnt, and of others, which count as the nearest plausible one. A
replica that has really changed by more is learnt within an hour; one with a wrong metric is not believed for
minutes."""

EARLY = 10
"""Measurements until which an implausible one replaces what was learnt: the first may have been wrong itself."""

MIN_BUSY_LIMIT = 0.2
"""Of a replica's time, even if no replica can meet the objective."""


@dataclass(frozen=True, slots=True)
class ReplicaModel:
    """The speed and capacity of one replica of a tier. A decode step of n sequences takes ``step_s + n * request_s``
    seconds. A member that is 0 is unknown, and has no effect."""

    prefill_tokens_per_s: float = 0.0
    step_s: float = 0.0
    request_s: float = 0.0
    sequences: float = 0.0  # mean requests that the KV cache holds, by its margin
    chunk_tokens: float = 0.0  # prompt tokens of a step

    @property
    def known(self) -> bool:
        """Whether anything has been measured."""
        return self.prefill_tokens_per_s > 0 or self.step_s > 0 or self.request_s > 0

    def slower(self, factor: float) -> ReplicaModel:
        """Returns the model of a replica that takes ``factor`` times as long for everything."""
        return replace(
            self,
            prefill_tokens_per_s=self.prefill_tokens_per_s / factor,
            step_s=factor * self.step_s,
            request_s=factor * self.request_s,
        )

    def prefill_s(self, tokens: float) -> float:
        """Returns the seconds of one replica that ``tokens`` prompt tokens take."""
        return tokens / self.prefill_tokens_per_s if self.prefill_tokens_per_s else 0.0

    def work_s(self, prompt_tokens: float, output_tokens: float) -> float:
        """Returns the seconds of one replica that a request of these lengths takes, without the fixed costs of
        steps."""
        weights_s = self.step_s * prompt_tokens / self.chunk_tokens if self.chunk_tokens else 0.0
        return max(0.0, self.prefill_s(prompt_tokens) - weights_s) + output_tokens * self.request_s

    def busy_limit(self, itl_s: float) -> float:
        """Returns the share of a replica's time, 0 to 1, that may be busy for a mean inter-token latency of
        ``itl_s``."""
        return min(1.0, max(MIN_BUSY_LIMIT, 1.0 - self.step_s / itl_s))

    def replicas(self, flow: ArrivalRate, itl_s: float) -> float:
        """Returns the number of replicas, as a fraction, that ``flow`` keeps busy on average, at the limit of
        inter-token latency or of KV cache, whichever is reached first. ``itl_s`` is the limit of the inter-token
        latency, in seconds."""
        work_s = self.work_s(flow.prompt_tokens, flow.output_tokens)
        by_latency = work_s / self.busy_limit(itl_s)
        by_cache = work_s + flow.output_tokens * self.step_s / self.sequences if self.sequences else 0.0
        by_steps = self.prefill_s(flow.prompt_tokens) + flow.output_tokens * self.request_s  # each step has a chunk
        return flow.rate * max(by_latency, by_cache, by_steps)

    def step(self, sequences: float) -> float:
        """Returns the seconds of a decode step of ``sequences`` sequences."""
        return self.step_s + sequences * self.request_s


def share_of(weight: float, seconds: float) -> float:
    """Returns the share that measurements of ``seconds`` have in what is learnt, where those of one second have
    ``weight``."""
    return 1.0 - float((1.0 - weight) ** seconds)


@dataclass(frozen=True, slots=True)
class Learnt:
    """An estimate of a quantity from ``count`` measurements."""

    value: float = 0.0
    count: int = 0

    def after(self, measured: float, seconds: float) -> Learnt:
        """Returns the estimate after one more measurement, which is above 0 and stands for ``seconds``."""
        nearest = min(PLAUSIBLE * self.value, max(self.value / PLAUSIBLE, measured))
        if nearest != measured and self.count < EARLY:
            return Learnt(measured, self.count + 1)
        weight = WEIGHT if nearest == measured else IMPLAUSIBLE_WEIGHT
        return Learnt(self.value + share_of(weight, seconds) * (nearest - self.value), self.count + 1)


@dataclass(frozen=True, slots=True)
class ReplicaMeasurements:
    """The measurements of a tier's replicas: prompt tokens per second, and, for each power of 2 of the batch size, the
    mean batch and the seconds of a step."""

    prefill: Learnt = field(default_factory=Learnt)
    steps: Mapping[int, tuple[Learnt, Learnt]] = field(default_factory=dict)

    def with_prefill(self, tokens_per_s: float, seconds: float = 1.0) -> ReplicaMeasurements:
        """Returns the measurements with one more prefill rate, which stands for ``seconds``. 0 means no measurement,
        and changes nothing."""
        return replace(self, prefill=self.prefill.after(tokens_per_s, seconds)) if tokens_per_s > 0 else self

    def with_step(self, batch: float, step_s: float, seconds: float = 1.0) -> ReplicaMeasurements:
        """Returns the measurements with one more decode step of ``step_s``, which stands for ``seconds``. 0 means no
        measurement, and changes nothing. ``batch`` is its number of sequences."""
        if batch <= 0 or step_s <= 0:
            return self
        bucket = min(15, max(0, round(log2(max(1.0, batch)))))
        learnt_batch, learnt_s = self.steps.get(bucket, (Learnt(), Learnt()))
        if learnt_s.count < EARLY:
            step_s = self._plausible(batch, step_s)
        learnt = (learnt_batch.after(batch, seconds), learnt_s.after(step_s, seconds))
        return replace(self, steps={**self.steps, bucket: learnt})

    def _plausible(self, batch: float, seconds: float) -> float:
        """Returns the seconds of a step, limited to what is plausible by the nearest size that is known well. Larger
        batches take longer, in proportion at most."""
        known = [(size.value, learnt.value) for size, learnt in self.steps.values() if learnt.count >= EARLY]
        if not known:
            return seconds
        size, learnt_s = min(known, key=lambda each: abs(log2(each[0] / batch)))
        most = PLAUSIBLE * learnt_s * max(1.0, batch / size)
        least = learnt_s * min(1.0, batch / size) / PLAUSIBLE
        return min(most, max(least, seconds))

    def model(self) -> ReplicaModel:
        """Returns the model that fits the measurements. Step times are fitted by least squares. With steps of one batch
        size only, the whole step counts as its fixed cost."""
        if not self.steps:
            return ReplicaModel(self.prefill.value)
        points = [(batch.value, seconds.value) for batch, seconds in self.steps.values()]
        mean_batch = sum(batch for batch, _ in points) / len(points)
        mean_s = sum(seconds for _, seconds in points) / len(points)
        spread = sum((batch - mean_batch) ** 2 for batch, _ in points)
        slope = sum((batch - mean_batch) * (s - mean_s) for batch, s in points) / spread if spread else 0.0
        slope = min(max(0.0, slope), mean_s / mean_batch)
        return ReplicaModel(self.prefill.value, mean_s - slope * mean_batch, slope)
