"""``SignalInputs``: the inputs of one tier's signals at one instant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cluster.autoscaling.arrival_rate import ArrivalRate
from cluster.autoscaling.config import FastLoopConfig, SloConfig, TierScalingConfig
from cluster.autoscaling.error_budget import ErrorBudget
from cluster.autoscaling.replica_model import ReplicaModel
from cluster.autoscaling.snapshot import BatchWork, LatencyReport, WaitingRoom
from cluster.autoscaling.staffing import staffed
from cluster.autoscaling.steadiness import Fall
from cluster.autoscaling.tier_load import TierLoad


@dataclass(frozen=True, slots=True)
class SignalInputs:
    """The load of a tier, the flow into it, and the speed of its replicas.

    ``flow`` has the arrivals, with the mean lengths of prompts and answers as last known; None: unknown. ``steady``:
    its arrivals are known to be (``Steadiness``). ``slo`` has the objectives of the strictest class.
    ``cold_start_s`` is above 0.
    """

    at_s: float
    load: TierLoad
    flow: ArrivalRate | None
    steady: bool
    model: ReplicaModel
    tier: TierScalingConfig
    slo: SloConfig
    fast: FastLoopConfig
    cold_start_s: float
    waiting_room: WaitingRoom
    latencies: Sequence[LatencyReport]
    batch_work: Sequence[BatchWork]
    falling: bool = False  # whether the arrivals are known to fall along a line
    budget: ErrorBudget = field(default_factory=ErrorBudget)
    fall: Fall | None = None  # if single requests explain what they leave that line by

    @property
    def queued_prompt_tokens(self) -> float:
        """The number of prompt tokens that wait for prefill, at the replicas and in the waiting room."""
        return self.load.queued_prompt_tokens + self.waiting_room.prompt_tokens

    @property
    def in_flight(self) -> float:
        """The number of requests at the replicas and in the waiting room."""
        return self.load.in_flight + self.waiting_room.requests

    @property
    def ttft_limit_s(self) -> float:
        """The seconds within which the first token of a mean prompt should come."""
        return self.slo.ttft_s(self.flow.prompt_tokens if self.flow else 0.0)

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
        """The seconds of prefill that may be queued at a replica: the margin x (the TTFT objective - a mean prompt's
        own prefill), and at least a tenth of the objective."""
        left = self.fast.ttft_margin * (self.ttft_limit_s - self.own_prefill_s)
        return max(0.1 * self.ttft_limit_s, left)

    @property
    def flow_replicas(self) -> float | None:
        """The number of replicas that the flow keeps busy on average. None if the flow, the length of its answers or
        the replicas' speed is unknown."""
        if self.flow is None or not self.model.known or (self.flow.rate and not self.flow.output_tokens):
            return None
        return self.model.replicas(self.flow, self.itl_limit_s)

    @property
    def down_window_s(self) -> float:
        """The seconds whose highest need a lowering has to leave: fewer while the arrivals fall."""
        longest = self.fast.down_window_s
        if self.fall:
            return min(self.fast.following_window_s, longest)
        return min(self.fast.falling_window_s, longest) if self.falling else longest

    @property
    def down_period_s(self) -> float:
        """The least number of seconds between any change and a lowering: fewer while a fall is followed."""
        return min(self.fast.down_period_s, self.down_window_s) if self.fall else self.fast.down_period_s

    @property
    def down_band(self) -> float:
        """The part of the highest need that a lowering leaves beyond it. 0 while the arrivals fall along a line: the
        need has what it may be wrong by in it."""
        return 0.0 if self.fall else self.fast.band

    @property
    def headroom(self) -> float:
        """The headroom for the flow, in standard deviations: less while it is steady, or falls along a line. If it is
        not steady, less while the error budget is not being spent."""
        little = min(self.fast.headroom, self.fast.steady_headroom)
        if self.steady:
            return little
        unspent = self.fast.unspent_headroom
        return (little if self.fall else self.fast.headroom) * (unspent + (1.0 - unspent) * self.budget.spent)

    def forecast_headroom(self, unspent: float) -> float:
        """Returns the headroom for a flow that is forecast: the part ``unspent`` of ``headroom`` while no request is
        late or refused, and all of it where as many are as may be. A forecast is the highest flow until a replica
        that is ordered now would serve, so that it is mostly above what comes."""
        return self.headroom * (unspent + (1.0 - unspent) * self.budget.spent_by(1.0))

    def staffed(self, replicas: float, flow: ArrivalRate | None) -> float:
        """Returns the number of replicas, with headroom for random peaks, for a flow that keeps ``replicas`` busy on
        average, and for what the rate of a fall may be wrong by. Short prompts cannot wait longer, however long the
        mean one is."""
        arrivals = flow.rate * self.slo.ttft_p99_s if flow else 0.0
        unsure = self.fall.error / flow.rate if self.fall and flow and flow.rate else 0.0
        return staffed(replicas, self.headroom, arrivals) + unsure * replicas

    def lasting(self, replicas: float, work_s: float) -> float:
        """Returns the part of ``replicas``, the number that would finish ``work_s`` seconds of backlog at once, that is
        still needed after the backlog.

        New replicas cannot help with a backlog before they have started. Where the flow is known, the result is
        therefore at most the number that serves the flow and finishes the backlog within ``drain_s``. So a short burst
        does not order replicas that start too late for it. While replicas start, the backlog grows because they are
        missing: then the flow alone decides.
        """
        mean = self.flow_replicas
        if mean is None:
            return replicas
        return min(replicas, self.staffed(mean, self.flow) if self.load.starting else mean + work_s / self.drain_s)

    @property
    def in_flight_work_s(self) -> float:
        """The seconds of one replica that all requests in flight take, counted from their beginnings. 0: the flow is
        unknown."""
        if self.flow is None:
            return 0.0
        work_s = self.model.work_s(self.flow.prompt_tokens, self.flow.output_tokens)
        return self.in_flight * work_s / self.model.busy_limit(self.itl_limit_s)

    @property
    def drain_s(self) -> float:
        """The seconds from now within which a queue should be finished. They include a cold start, before which new
        replicas do not help."""
        return self.fast.drain_s + self.cold_start_s

    @property
    def at_work_replicas(self) -> float:
        """The number of replicas, with headroom, for the flow that the requests at the replicas imply, independent of
        the routers' counters.

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
