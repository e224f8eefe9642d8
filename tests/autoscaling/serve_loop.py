"""``Serve``: the control loop of Ray Serve around the scaler of an application."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cluster.autoscaling.application_scaler import ApplicationScaler
from cluster.autoscaling.config import AutoscalingConfig, FastLoopConfig, TierScalingConfig
from cluster.autoscaling.decision import Decisions
from cluster.autoscaling.replica_report import WindowedLatencies, to_numbers
from cluster.autoscaling.snapshot import Pin
from cluster.autoscaling.snapshot_collector import ReplicaView, TierView
from engine.api import ClassLoad, EngineLoad, Priority

T = 1_767_600_000.0
TICK_S = 0.1


class Serve:
    """Serve's control loop: asks for each tier's target every 100 ms, and carries it out at once."""

    def __init__(self, config: AutoscalingConfig, pins: Callable[[], tuple[Pin, ...]] = tuple) -> None:
        self.config = config
        self.decisions: list[Decisions] = []
        self.pins = pins
        self.at_s = T
        self.clock_s = 0.0  # by which the time of day is ahead of the scaler's clock
        self.targets = {name: tier.min for name, tier in config.tiers.items()}
        self.queued = dict.fromkeys(config.tiers, 0.0)  # prompt tokens of each replica
        self.reads = 0
        self.restart()

    def restart(self) -> None:
        """A new controller, which remembers nothing but the targets."""
        gpus = dict.fromkeys(self.config.tiers, 1.0)
        self.scaler = ApplicationScaler(self.config, gpus, self.decisions.append, self.pins)

    def run(self, seconds: float, *tiers: str) -> None:
        for _ in range(round(seconds / TICK_S)):
            for tier in tiers or self.config.tiers:
                for _ in range(2):  # Serve may ask twice (ray 59220)
                    read = partial(self.view, tier)
                    time_s = self.at_s + self.clock_s
                    self.targets[tier] = self.scaler.target(tier, self.targets[tier], read, self.at_s, time_s)
            self.at_s += TICK_S

    def view(self, tier: str) -> TierView:
        self.reads += 1
        count, queued = self.targets[tier], self.queued[tier]
        arrivals = int(self.at_s - T) * 20 if queued else 0
        classes = {Priority.STANDARD: ClassLoad(arrivals, 0, arrivals * 500.0, arrivals, arrivals * 100)}
        load = EngineLoad(
            running=4 if queued else 0,
            waiting=int(queued / 500),
            queued_prompt_tokens=queued,
            kv_capacity_tokens=200_000,
            prefill_tokens_per_s=10_000,
            decode_step_s=0.02,
            decode_batch=4,
            classes=classes,
        )
        numbers = to_numbers(load, WindowedLatencies(), 1.0)
        return TierView(tier, count, tuple(ReplicaView(f"{tier}{n}", self.at_s, numbers) for n in range(count)))


def config_of(*tiers: str, gpus: float | None = None, down_window_s: float = 120.0) -> AutoscalingConfig:
    pool = None if gpus is None else "h100"
    return AutoscalingConfig(
        tiers={name: TierScalingConfig(min=1, max=8, pool=pool) for name in tiers},
        pools={} if gpus is None else {"h100": gpus},
        fast=FastLoopConfig(down_window_s=down_window_s, down_period_s=5.0),
    )
