"""Snapshots for tests, and ``Plant``: replicas as a fluid on a virtual clock, which carry out the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from cluster.autoscaling.config import AutoscalingConfig, FastLoopConfig, SloConfig, TierScalingConfig
from cluster.autoscaling.decision import TierDecision
from cluster.autoscaling.histogram import LatencyHistogram
from cluster.autoscaling.policy import AutoscalerState, decide
from cluster.autoscaling.snapshot import (
    BatchWork,
    ClassCounters,
    LatencyReport,
    Pin,
    ReplicaSample,
    ReplicaSnapshot,
    ReplicaState,
    Snapshot,
    TierSnapshot,
    WaitingRoom,
)
from engine.api import Priority

START_S = 1_767_600_000.0  # 2026-01-05 08:00 UTC, a Monday
PREFILL = 10_000.0  # tokens/s of a replica
STEP_S, REQUEST_S = 0.02, 0.001
PROMPT, OUTPUT = 500.0, 100.0  # tokens of a request
KV = 200_000.0  # tokens of a replica's KV cache


def config_of(fast: FastLoopConfig | None = None, **tier: object) -> AutoscalingConfig:
    """Settings with one tier, ``fast``."""
    settings = {"min": 1, "max": 64, "slos": {"standard": SloConfig(ttft_p99_s=2.0, itl_p99_s=0.1)}} | tier
    return AutoscalingConfig(tiers={"fast": TierScalingConfig.model_validate(settings)}, fast=fast or FastLoopConfig())


def sample_of(at_s: float, *, queued: float = 0.0, running: int = 0, waiting: int = 0, batch: int = 0) -> ReplicaSample:
    """A sample in which requests need KV cache in proportion."""
    decoding = max(1, running)
    return ReplicaSample(
        at_s,
        queued_prompt_tokens=queued,
        running_requests=running,
        waiting_requests=waiting,
        kv_used_tokens=running * (PROMPT + OUTPUT / 2),
        kv_demand_tokens=(running + waiting) * (PROMPT + OUTPUT),
        kv_capacity_tokens=KV,
        prefill_tokens_per_s=PREFILL,
        decode_step_s=STEP_S + REQUEST_S * decoding,
        decode_batch=decoding,
        batch_requests=batch,
        batch_kv_tokens=batch * (PROMPT + OUTPUT),
    )


def ready(at_s: float, sample: ReplicaSample | None, name: str = "r", since_s: float = 0.0) -> ReplicaSnapshot:
    return ReplicaSnapshot(name, ReplicaState.READY, since_s, sample)


def counters_of(
    arrivals: float, *, prompt: float = PROMPT, refusals: float = 0, late: float = 0
) -> dict[Priority, ClassCounters]:
    return {
        Priority.STANDARD: ClassCounters(
            arrivals=int(arrivals),
            refusals=int(refusals),
            prompt_tokens=int(arrivals) * prompt,
            finished=int(arrivals),
            output_tokens=int(arrivals) * OUTPUT,
            late=int(late),
        )
    }


@dataclass
class Bench:
    """Calls ``decide`` once a second with a tier that a test changes, and carries out its targets at once unless
    ``frozen``."""

    config: AutoscalingConfig = field(default_factory=config_of)
    replicas: int = 1
    rate: float = 0.0  # requests/s
    queued: float = 0.0  # tokens of each replica
    running: int = 0  # of each replica
    waiting: int = 0
    refused: float = 0.0  # part of the arrivals
    late: float = 0.0  # part of the arrivals
    frozen: bool = False
    starting: bool = False  # whether new replicas stay in STARTING
    edit: Callable[[float, TierSnapshot], TierSnapshot] = lambda at_s, tier: tier
    pins: tuple[Pin, ...] = ()
    batch_work: tuple[BatchWork, ...] = ()
    waiting_room: WaitingRoom = field(default_factory=WaitingRoom)
    latencies: Callable[[float], Sequence[LatencyReport]] = lambda at_s: ()
    at_s: float = START_S
    arrivals: float = 0.0
    refusals: float = 0.0
    were_late: float = 0.0
    state: AutoscalerState = field(default_factory=AutoscalerState)
    target: int = -1

    def snapshot(self) -> Snapshot:
        target = self.replicas if self.target < 0 else self.target
        sample = sample_of(self.at_s, queued=self.queued, running=self.running, waiting=self.waiting)
        serving = [ready(self.at_s, sample, f"r{i}") for i in range(self.replicas)]
        loading = [
            ReplicaSnapshot(f"s{i}", ReplicaState.STARTING, self.at_s - 1) for i in range(target - self.replicas)
        ]
        tier = TierSnapshot(
            "fast",
            target,
            (*serving, *loading),
            counters_of(self.arrivals, refusals=self.refusals, late=self.were_late),
            latencies=tuple(self.latencies(self.at_s)),
            waiting_room=self.waiting_room,
            batch_work=self.batch_work,
            cold_start_s=20.0,
        )
        return Snapshot(self.at_s, (self.edit(self.at_s, tier),), pins=self.pins)

    def tick(self) -> TierDecision:
        self.state, decisions = decide(self.config, self.state, self.snapshot())
        decision = decisions.tiers["fast"]
        assert not decision.detail, decision.detail
        if not self.frozen:
            self.target = decision.target
            if not self.starting or decision.target < self.replicas:
                self.replicas = decision.target
        self.at_s += 1.0
        self.arrivals += self.rate
        self.refusals += self.rate * self.refused
        self.were_late += self.rate * self.late
        return decision

    def run(self, seconds: int) -> list[TierDecision]:
        return [self.tick() for _ in range(seconds)]


class Plant:
    """Replicas as a fluid: a common queue of prompts, and requests that decode together.

    Prefill has the time that steps leave it; a replica decodes ``n`` tokens per step of ``STEP_S + REQUEST_S * n``.
    """

    def __init__(
        self,
        config: AutoscalingConfig,
        rate: Callable[[float], float],
        *,
        replicas: int = 1,
        cold_start_s: float = 15.0,
        edit: Callable[[float, TierSnapshot], TierSnapshot] = lambda elapsed_s, tier: tier,
    ) -> None:
        self.config, self.rate, self.cold_start_s, self.edit = config, rate, cold_start_s, edit
        self.at_s, self.state = START_S, AutoscalerState()
        self.ready_at = [START_S - 1e4] * replicas
        self.queued = self.decoding = self.arrivals = self.finished = 0.0
        self.targets: list[int] = []
        self.queue_s: list[float] = []
        self.reasons: list[str] = []

    def run(self, seconds: int) -> Plant:
        for _ in range(seconds):
            self._work()
            decision = self._decide()
            self.targets.append(decision.target)
            self.reasons.append(decision.reason)
        return self

    @property
    def changes(self) -> list[int]:
        """The seconds at which the target changed."""
        return [second for second, (a, b) in enumerate(pairwise(self.targets), 1) if a != b]

    def _serving(self) -> int:
        return max(1, sum(at <= self.at_s for at in self.ready_at))

    def _work(self) -> None:
        count = self._serving()
        new = self.rate(self.at_s - START_S)
        self.arrivals += new
        self.queued += new * PROMPT
        prefilled = min(self.queued, 0.7 * count * PREFILL)
        self.queued -= prefilled
        self.decoding += prefilled / PROMPT
        share = 1.0 - prefilled / (count * PREFILL)
        tokens = share * self.decoding / (STEP_S + REQUEST_S * self.decoding / count)
        done = min(self.decoding, tokens / OUTPUT)
        self.decoding -= done
        self.finished += done
        self.queue_s.append(self.queued / (count * PREFILL))
        self.at_s += 1.0

    def _decide(self) -> TierDecision:
        count = self._serving()
        each = sample_of(self.at_s, queued=self.queued / count, running=round(self.decoding / count))
        each = replace(each, waiting_requests=round(self.queued / PROMPT / count))
        target = len(self.ready_at)
        replicas = tuple(
            ready(self.at_s, each, f"r{i}", at)
            if at <= self.at_s
            else ReplicaSnapshot(f"r{i}", ReplicaState.STARTING, at - self.cold_start_s)
            for i, at in enumerate(self.ready_at)
        )
        counters: Mapping[Priority, ClassCounters] = {
            Priority.STANDARD: ClassCounters(
                arrivals=int(self.arrivals),
                prompt_tokens=int(self.arrivals) * PROMPT,
                finished=int(self.finished),
                output_tokens=int(self.finished) * OUTPUT,
            )
        }
        tier = TierSnapshot("fast", target, replicas, counters, cold_start_s=self.cold_start_s)
        snapshot = Snapshot(self.at_s, (self.edit(self.at_s - START_S, tier),))
        self.state, decisions = decide(self.config, self.state, snapshot)
        decision = decisions.tiers["fast"]
        assert not decision.detail, decision.detail
        del self.ready_at[decision.target :]
        self.ready_at += [self.at_s + self.cold_start_s] * (decision.target - len(self.ready_at))
        return decision


def report_of(
    at_s: float, ttft_s: float, itl_s: float = 0.01, count: int = 200, source: str = "router"
) -> LatencyReport:
    """A report in which all latencies are the same."""
    return LatencyReport(
        source,
        Priority.STANDARD,
        at_s,
        LatencyHistogram.of([ttft_s] * count),
        LatencyHistogram.of([itl_s] * count),
    )
