"""Makes stub engines inside replicas."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.config import TierConfig
from cluster.replica.tier_replica import OnStep, ReplicaEngine
from load_tests.overhead.stub import StubEngine


@dataclass(frozen=True, slots=True)
class StubFactory:
    """An engine factory for ``cluster.app.build_with``."""

    step_s: float
    varied: bool = False

    def __call__(self, tier: TierConfig, on_step: OnStep) -> ReplicaEngine:
        """A stub engine in place of the tier's model."""
        return StubEngine(on_step, self.step_s, varied=self.varied)
