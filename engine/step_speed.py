"""``StepSpeed``: what the steps of an engine take, as recent means and as a fit."""

from __future__ import annotations

from engine.load import StepTimes
from engine.scheduler.step_plan import Load
from engine.step_cost import StepCostFit


class StepSpeed:
    """What is known of an engine's steps: ``times`` are recent means, by which tiers are scaled, and ``cost`` is a fit,
    by which requests are placed."""

    def __init__(self) -> None:
        self.times, self.cost = StepTimes(), StepCostFit()

    def observe(self, load: Load, seconds: float, now: float) -> None:
        """Records that a step with this ``load`` took ``seconds`` and ended at ``now``, by the engine's clock."""
        self.times.observe(load, seconds, now)
        self.cost.observe(load, seconds, now)

    def reset(self) -> None:
        """Forgets how long steps took."""
        self.times, self.cost = StepTimes(), StepCostFit()

    def discount(self) -> None:
        """Forgets the means, and keeps the fit until there are steps of requests."""
        self.times = StepTimes()
        self.cost.discount()
