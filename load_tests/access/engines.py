"""Engines whose requests can be made to fail in the middle of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # they import Ray, which reads the environment then: the measurement sets that later
    from cluster.config import TierConfig
    from cluster.replica.tier_replica import OnStep, ReplicaEngine

FAILING = "failing"
"""The tenant whose requests fail."""
FAILS_AT = 5  # the number of the token whose text cannot be made


@dataclass(frozen=True, slots=True)
class FailingFactory:
    """An engine factory for ``cluster.app.build_with``: the tier's own model and engine, in which every request of the
    tenant FAILING fails at its token number FAILS_AT, as a fault in the engine does."""

    def __call__(self, tier: TierConfig, on_step: OnStep) -> ReplicaEngine:
        # Imported in the replicas alone, as in ``cluster.app``.
        from engine.async_engine import AsyncEngine
        from load_tests.access.failing_engine import FailingEngine

        return AsyncEngine(FailingEngine.from_config(tier.engine), on_step)
