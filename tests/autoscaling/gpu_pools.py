"""``Pool``: tiers that share the GPUs of a pool."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.autoscaling.config import AutoscalingConfig, TierScalingConfig
from cluster.autoscaling.decision import Reason
from cluster.autoscaling.policy import AutoscalerState, decide
from cluster.autoscaling.snapshot import Snapshot, TierSnapshot, WaitingRoom
from tests.autoscaling.snapshots import START_S, counters_of, ready, sample_of

GPUS = 8


@dataclass
class Load:
    """A tier and what it gets. ``fault``: its metrics are "stale", or "bad", which the policy cannot compute with."""

    replicas: int
    rate: float = 0.0
    running: int = 0
    fault: str = ""
    room: WaitingRoom = field(default_factory=WaitingRoom)
    arrivals: float = 0.0

    def snapshot(self, name: str, at_s: float) -> TierSnapshot:
        sample = None if self.fault == "stale" else sample_of(at_s, running=self.running)
        serving = tuple(ready(at_s, sample, f"{name}{place}") for place in range(self.replicas))
        target: int = "four" if self.fault == "bad" else self.replicas  # type: ignore[assignment]  # the fault
        return TierSnapshot(
            name,
            target,
            serving,
            counters_of(self.arrivals),
            waiting_room=self.room,
            cold_start_s=20.0,
            gpus_per_replica=1.0,
        )


class Pool:
    """Two tiers of a pool, whose targets are carried out at once."""

    def __init__(self, **loads: Load) -> None:
        tier = TierScalingConfig(min=0, max=8, pool="h100")
        self.config = AutoscalingConfig(tiers=dict.fromkeys(loads, tier), pools={"h100": GPUS})
        self.loads = loads
        self.state = AutoscalerState()
        self.at_s = START_S

    def run(self, seconds: int) -> dict[str, int]:
        """Returns the replicas of each tier after that time."""
        for _ in range(seconds):
            tiers = tuple(load.snapshot(name, self.at_s) for name, load in self.loads.items())
            self.state, decisions = decide(self.config, self.state, Snapshot(self.at_s, tiers))
            for name, load in self.loads.items():
                if load.fault != "bad":
                    load.replicas = decisions.tiers[name].target
                load.arrivals += load.rate
            self.at_s += 1.0
        return {name: load.replicas for name, load in self.loads.items()}

    def reason(self, tier: str) -> Reason:
        assert self.state.decisions is not None
        return self.state.decisions.tiers[tier].reason
