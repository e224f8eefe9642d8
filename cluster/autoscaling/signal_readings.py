"""``Evidence``: what the signals of one tier read, at one instant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cluster.autoscaling.arrival_rate import Flow
from cluster.autoscaling.config import FastLoopConfig, SloConfig, TierScalingConfig
from cluster.autoscaling.replica_model import ReplicaModel
from cluster.autoscaling.snapshot import BatchWork, LatencyReport, WaitingRoom
from cluster.autoscaling.staffing import staffed
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

    def staffed(self, replicas: float, flow: Flow | None) -> float:
        """Returns the replicas for a flow whose mean keeps ``replicas`` busy, with headroom for chance."""
        arrivals = flow.rate * self.slo.ttft_p99_s if flow else 0.0
        return staffed(replicas, self.fast.headroom, arrivals)

    def lasting(self, replicas: float, work_s: float) -> float:
        """Returns what is needed of ``replicas``, which would make up for ``work_s`` seconds of piled-up work at once.

        Work that has piled up is not done sooner than new replicas start. Where the flow is known, the need is
        therefore at most what serves the flow and does the work within ``drain_s``. So a short burst does not order
        replicas that come too late for it. While replicas start, the work piles up because they are missing: then the
        flow alone says how many there should be.
        """
        mean = self.flow_replicas
        if mean is None:
            return replicas
        return min(replicas, self.staffed(mean, self.flow) if self.load.starting else mean + work_s / self.drain_s)

    @property
    def in_flight_work_s(self) -> float:
        """The seconds of one replica that all requests in flight take, as if none had begun."""
        if self.flow is None:
            return 0.0
        work_s = self.model.work_s(self.flow.prompt_tokens, self.flow.output_tokens)
        return self.in_flight * work_s / self.model.busy_limit(self.itl_limit_s)

    @property
    def drain_s(self) -> float:
        """Seconds from now in which a queue should be worked off. New replicas help after a cold start."""
        return self.fast.drain_s + self.cold_start_s

    @property
    def at_work_replicas(self) -> float:
        """The replicas for the flow that the requests at the replicas imply, with headroom, whatever was counted at the
        routers.

        By Little's law, a replica with ``n`` requests finishes ``n / (output * step(n) + n * prefill)`` a second, where
        ``prefill`` is the time of a prompt: steps have the time that prefill leaves. 0 if unknown.
        """
        ready, flow = self.load.ready, self.flow
        if not ready or flow is None or not self.load.in_flight:
            return 0.0
        each = self.load.in_flight / ready
        seconds = flow.output_tokens * self.model.step(each) + each * self.model.prefill_s(flow.prompt_tokens)
        if not seconds:
            return 0.0
        implied = replace(flow, rate=ready * each / seconds)
        return self.staffed(self.model.replicas(implied, self.itl_limit_s), implied)
