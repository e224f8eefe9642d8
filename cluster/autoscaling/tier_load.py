"""``TierLoad``: the load of a tier's replicas, as sums and medians of their recent reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from statistics import median

from cluster.autoscaling.majority_speed_group import majority_speed_group
from cluster.autoscaling.snapshot import ReplicaSample, ReplicaSnapshot, ReplicaState, TierSnapshot

MAX_SKEW_S = 1.0
"""A sample from further in the future has a wrong clock, and counts as stale."""


@dataclass(frozen=True, slots=True)
class TierLoad:
    """The load of the ready replicas of a tier.

    Sums are scaled from the replicas with fresh samples to all ready ones: a replica whose sample is stale has the mean
    load. The sums leave out batch work. Rates and durations are medians, which a single wrong replica does not change;
    0: unknown. They are of the replicas with the ``model`` that most have.
    """

    ready: int = 0
    fresh: int = 0  # ready, with a fresh and sound sample
    starting: int = 0  # those that are not stuck
    stuck: int = 0  # starting for far longer than a cold start
    draining: int = 0
    warm: int = 0
    newcomers: int = 0  # replicas that became ready a moment ago
    queued_prompt_tokens: float = 0.0
    in_flight: float = 0.0  # requests, running and waiting
    batch_in_flight: float = 0.0
    kv_demand_tokens: float = 0.0
    kv_capacity_tokens: float = 0.0  # of one replica
    prefill_tokens_per_s: float = 0.0  # of one replica
    decode_step_s: float = 0.0
    decode_batch: float = 0.0
    chunk_tokens: float = 0.0  # of one replica
    model: int = 0  # 0: unknown


def load_of(
    tier: TierSnapshot, at_s: float, *, stale_s: float, stuck_s: float, new_s: float, model: int = 0
) -> TierLoad:
    """Returns the load of ``tier`` at the instant ``at_s``. ``model`` is the number of the model that prevailed
    in the load before, and stays so while no other has a majority; 0: unknown.

    Samples older than ``stale_s`` seconds are left out. A replica that has been starting for ``stuck_s`` is stuck; one
    that has been ready for less than ``new_s`` is a newcomer.
    """
    ready = [each for each in tier.replicas if each.state is ReplicaState.READY]
    starting = [each for each in tier.replicas if each.state is ReplicaState.STARTING]
    stuck = sum(at_s - each.since_s > stuck_s for each in starting)
    samples = [each.sample for each in ready if each.sample is not None and _usable(each.sample, at_s, stale_s)]
    counts = TierLoad(
        ready=len(ready),
        fresh=len(samples),
        starting=len(starting) - stuck,
        stuck=stuck,
        draining=_count(tier.replicas, ReplicaState.DRAINING),
        warm=_count(tier.replicas, ReplicaState.WARM),
        newcomers=sum(at_s - each.since_s < new_s for each in ready),
    )
    return _with_samples(counts, samples, model) if samples else replace(counts, model=model)


def _with_samples(counts: TierLoad, samples: Sequence[ReplicaSample], model: int) -> TierLoad:
    scale = counts.ready / len(samples)
    batch = sum(each.batch_requests for each in samples)
    model = majority_speed_group([each.model for each in samples], model)
    alike = [each for each in samples if each.model in (0, model)]
    steps = [(each.decode_step_s, each.decode_batch) for each in alike if each.decode_step_s and each.decode_batch]
    return TierLoad(
        ready=counts.ready,
        fresh=counts.fresh,
        starting=counts.starting,
        stuck=counts.stuck,
        draining=counts.draining,
        warm=counts.warm,
        newcomers=counts.newcomers,
        queued_prompt_tokens=scale * sum(max(0, s.queued_prompt_tokens - s.batch_prompt_tokens) for s in samples),
        in_flight=scale * sum(max(0, s.running_requests + s.waiting_requests - s.batch_requests) for s in samples),
        batch_in_flight=scale * batch,
        kv_demand_tokens=scale * sum(max(0, s.kv_demand_tokens - s.batch_kv_tokens) for s in samples),
        kv_capacity_tokens=_median([s.kv_capacity_tokens for s in alike]),
        prefill_tokens_per_s=_median([s.prefill_tokens_per_s for s in alike]),
        decode_step_s=_median([step for step, _ in steps]),
        decode_batch=_median([batch for _, batch in steps]),
        chunk_tokens=_median([s.chunk_tokens for s in alike]),
        model=model,
    )


def _count(replicas: Sequence[ReplicaSnapshot], state: ReplicaState) -> int:
    return sum(each.state is state for each in replicas)


def _median(values: Sequence[float]) -> float:
    """Returns the median of the positive ``values``, since 0 is unknown; 0 if there are none."""
    known = [value for value in values if value > 0]
    return median(known) if known else 0.0


def _usable(sample: ReplicaSample, at_s: float, stale_s: float) -> bool:
    """Whether the sample is fresh, and its numbers are finite and not negative."""
    numbers = (
        sample.queued_prompt_tokens,
        sample.running_requests,
        sample.waiting_requests,
        sample.kv_used_tokens,
        sample.kv_demand_tokens,
        sample.kv_capacity_tokens,
        sample.prefill_tokens_per_s,
        sample.decode_step_s,
        sample.decode_batch,
        sample.chunk_tokens,
        sample.batch_prompt_tokens,
        sample.batch_requests,
        sample.batch_kv_tokens,
    )
    fresh = -MAX_SKEW_S <= at_s - sample.observed_at_s <= stale_s
    return fresh and isfinite(sum(numbers)) and min(numbers) >= 0
