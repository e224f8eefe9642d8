"""Engines whose steps take at least a given time, so that streams of a small model last some seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster.config import TierConfig
from cluster.replica.tier_replica import OnStep, ReplicaEngine


@dataclass(frozen=True, slots=True)
class PacedFactory:
    """An engine factory for ``cluster.app.build_with``: the tier's own model and engine, whose steps take at least
    ``step_s`` seconds. ``kills`` is a directory as in ``PacedEngine``; "": there is none."""

    step_s: float
    kills: str = ""

    def __call__(self, tier: TierConfig, on_step: OnStep) -> ReplicaEngine:
        # Imported in the replicas alone, as in ``cluster.app``.
        from engine.async_engine import AsyncEngine
        from load_tests.chaos.paced_engine import PacedEngine

        engine = PacedEngine.from_config(tier.engine, objectives_s=tier.latency_objectives_s)
        engine.step_s = self.step_s
        engine.kills = Path(self.kills) if self.kills else None
        return AsyncEngine(engine, on_step)


POISON = "This request kills the replica that runs it."
LATE_POISON = "This request kills the replica that runs it in the middle of its answer."
"""Prompts with these words do."""
LATE = 10
"""Tokens that a request with LATE_POISON has got when it kills a replica."""


@dataclass(frozen=True, slots=True)
class PoisonFactory:
    """An engine factory as PacedFactory, whose engines end their process when a request with POISON is to get its first
    token, or one with LATE_POISON that after LATE tokens: as a request does that makes a kernel or a library crash."""

    step_s: float

    def __call__(self, tier: TierConfig, on_step: OnStep) -> ReplicaEngine:
        # Imported in the replicas alone, as in ``cluster.app``.
        from engine.async_engine import AsyncEngine
        from load_tests.chaos.poison_engine import PoisonEngine

        engine = PoisonEngine.from_config(tier.engine)
        engine.step_s = self.step_s
        return AsyncEngine(engine, on_step)
