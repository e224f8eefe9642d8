"""``Evidence``: what the signals of one tier read, at one instant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.autoscaling.config import FastLoopConfig, SloConfig, TierScalingConfig
from cluster.autoscaling.flow import Flow
from cluster.autoscaling.replica_model import ReplicaModel
from cluster.autoscaling.snapshot import BatchWork, LatencyReport, WaitingRoom
from cluster.autoscaling.tier_load import TierLoad


@dataclass(frozen=True, slots=True)
class Evidence:
    """The load of a tier, the flow into it, and what its replicas are capable of.

    ``flow`` is None if it is unknown; its lengths are the last known ones. ``slo`` is that of the strictest class.
    ``cold_start_s`` is above 0.
    """

    at_s: float
    load: TierLoad
    flow: Flow | None
    model: ReplicaModel
    tier: TierScalingConfig
    slo: SloConfig
    fast: FastLoopConfig
    cold_start_s: float
    waiting_room: WaitingRoom
    latencies: Sequence[LatencyReport]
    batch_work: Sequence[BatchWork]

    @property
    def queued_prompt_tokens(self) -> float:
        """Prompt tokens that wait for prefill, at the replicas and in the waiting room."""
        return self.load.queued_prompt_tokens + self.waiting_room.prompt_tokens

    @property
    def in_flight(self) -> float:
        """Requests at the replicas and in the waiting room."""
        return self.load.in_flight + self.waiting_room.requests

    @property
    def itl_limit_s(self) -> float:
        """The mean inter-token latency that the margin allows, in seconds."""
        return self.fast.itl_margin * self.slo.itl_p99_s

    @property
    def own_prefill_s(self) -> float:
        """The seconds of a mean prompt's own prefill on an idle replica."""
        return self.model.prefill_s(self.flow.prompt_tokens) if self.flow else 0.0

    @property
    def queue_budget_s(self) -> float:
        """Seconds of prefill that may be queued before a replica: the part of the TTFT objective that a mean prompt's
        own prefill leaves, by the margin; at least a tenth of the objective."""
        left = self.fast.ttft_margin * (self.slo.ttft_p99_s - self.own_prefill_s)
        return max(0.1 * self.slo.ttft_p99_s, left)

    @property
    def flow_replicas(self) -> float | None:
        """The replicas that the mean of the flow keeps busy. None if flow or replicas are unknown."""
        if self.flow is None or not self.model.known:
            return None
        return self.model.replicas(self.flow, self.itl_limit_s)

    @property
    def drain_s(self) -> float:
        """Seconds in which a queue should be worked off. New replicas do not help sooner than after a cold start."""
        return max(self.fast.drain_s, self.cold_start_s)
