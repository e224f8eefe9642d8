"""``MantaPolicy``: the autoscaler of the product, ``cluster.autoscaling.policy.decide``, in the simulator.

The adapter only translates: what replicas and routers of a cluster report becomes a snapshot, the decision of the one
tier becomes the target. Nothing of a request's future is in the snapshot: the cache that running requests will need is
estimated by the mean length of the answers that have ended.
"""

from __future__ import annotations

import numpy as np

from cluster.autoscaling.config import AutoscalingConfig, SloConfig, TierScalingConfig
from cluster.autoscaling.decision import TierDecision
from cluster.autoscaling.histogram import LatencyHistogram
from cluster.autoscaling.policy import AutoscalerState, decide
from cluster.autoscaling.snapshot import (
    ClassCounters,
    LatencyReport,
    ReplicaSample,
    ReplicaSnapshot,
    ReplicaState,
    Snapshot,
    TierSnapshot,
    WaitingRoom,
)
from engine.api import Priority
from load_tests.simulation.observation import BOUNDS_S, WINDOW_S, Observation, ReplicaView
from load_tests.simulation.tier import Tier

TIER = "simulated"
EPOCH_S = 1_700_006_400.0  # Unix seconds at which the trace starts: a midnight in UTC
ALLOWANCE = 0.5
"""The part of the SLO's allowance for long prompts that the autoscaler has. All of it leaves too little in reserve: one
seed of three misses 99 % on Mooncake's trace."""

PRIORITIES = (Priority.STANDARD, Priority.BATCH)


class MantaPolicy:
    """``config`` replaces the defaults of the product, for ablations; its tier is set here."""

    name = "manta"

    def __init__(self, tier: Tier, config: AutoscalingConfig | None = None) -> None:
        self._tier = tier
        slo = SloConfig(
            ttft_p99_s=tier.slo.ttft_s,
            ttft_s_per_1k_tokens=1000 * ALLOWANCE * tier.slo.ttft_s_per_token,
            itl_p99_s=tier.slo.itl_s,
        )
        scaling = TierScalingConfig(min=tier.replicas_min, max=tier.replicas_max, slos={"standard": slo})
        self._config = (config or AutoscalingConfig()).model_copy(update={"tiers": {TIER: scaling}})
        self._slo = slo
        self._late = [0 for _ in PRIORITIES]  # first tokens, since the start
        self._state = AutoscalerState()
        self.interval_s = self._config.interval_s
        self.last: TierDecision | None = None

    def decide(self, seen: Observation) -> int:
        """Returns the target of the product's policy."""
        self._count_late(seen)
        self._state, decisions = decide(self._config, self._state, self.snapshot(seen))
        self.last = decisions.tiers[TIER]
        return self.last.target

    def _count_late(self, seen: Observation) -> None:
        """Counts the first tokens that were late for their own prompts, as replicas do."""
        base_s, per_1k_s = self._slo.ttft_p99_s, self._slo.ttft_s_per_1k_tokens
        for kind, first_tokens in enumerate(seen.first_tokens or ()):
            limits_s = base_s + per_1k_s * np.asarray(first_tokens.uncached_tokens) / 1000  # ``SloConfig.ttft_s``
            self._late[kind] += int(np.count_nonzero(np.asarray(first_tokens.ttft_s) > limits_s))

    def snapshot(self, seen: Observation) -> Snapshot:
        """Returns what the collector of a cluster would have gathered."""
        now = EPOCH_S + seen.at
        finished = sum(each.finished for each in seen.counters)
        output = sum(each.output_tokens for each in seen.counters) / finished if finished else self._tier.output
        replicas = [
            ReplicaSnapshot(str(each.slot), ReplicaState.READY, EPOCH_S + since, self._sample(each, now, output))
            for each, since in zip(seen.ready, seen.ready_since, strict=True)
        ]
        replicas += [
            ReplicaSnapshot(str(each.slot), ReplicaState.STARTING, EPOCH_S + each.since) for each in seen.starting
        ]
        replicas += [
            ReplicaSnapshot(str(each.slot), ReplicaState.DRAINING, now, self._sample(each, now, output))
            for each in seen.draining
        ]
        tier = TierSnapshot(
            name=TIER,
            target=seen.target,
            replicas=tuple(replicas),
            counters={
                priority: ClassCounters(
                    each.arrivals, each.refusals, each.uncached_tokens, each.finished, each.output_tokens, late
                )
                for priority, each, late in zip(PRIORITIES, seen.counters, self._late, strict=True)
            },
            latencies=tuple(
                LatencyReport(
                    "router",
                    priority,
                    now,
                    LatencyHistogram(tuple(each.ttft_counts.tolist()), BOUNDS_S),
                    LatencyHistogram(tuple(each.itl_counts.tolist()), BOUNDS_S, max(0.0, each.itl_s)),
                    WINDOW_S,
                    counts_late=seen.first_tokens is not None,
                )
                for priority, each in zip(PRIORITIES, seen.latencies, strict=True)
            ),
            waiting_room=WaitingRoom(len(seen.room), sum(seen.room), seen.at - seen.room_since),
            cold_start_s=self._tier.cold_start_s,
            gpus_per_replica=self._tier.profile.gpus,
        )
        return Snapshot(now, (tier,))

    def _sample(self, replica: ReplicaView, now: float, output: float) -> ReplicaSample:
        profile = self._tier.profile
        decoding = replica.decoding
        return ReplicaSample(
            observed_at_s=now,
            queued_prompt_tokens=replica.backlog_s * profile.prefill_tokens_s,
            running_requests=decoding + replica.prefilling,
            waiting_requests=len(replica.waiting),
            kv_used_tokens=replica.kv_resident,
            kv_demand_tokens=replica.prompt_tokens + replica.outstanding * output,
            kv_capacity_tokens=profile.kv_tokens,
            prefill_tokens_per_s=profile.prefill_tokens_s,
            decode_step_s=profile.decode_step_s(decoding, replica.kv_resident) if decoding else 0.0,
            decode_batch=decoding,
            chunk_tokens=profile.chunk_tokens,
        )
