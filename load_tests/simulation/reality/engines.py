"""The engine factories of the comparison, by the names of ``SETUPS``. They are called in the replicas' processes."""

from __future__ import annotations

from cluster.config import TierConfig
from cluster.replica.tier_engine import make_engine
from cluster.replica.tier_replica import EngineFactory, OnStep, ReplicaEngine
from load_tests.simulation.reality.batching_stub import BatchingFactory


def stretched_engine(tier: TierConfig, on_step: OnStep) -> ReplicaEngine:
    """Returns the tier's engine with the step times of a larger model, which it has measured in its warm-up."""
    # Imported in the replicas alone, as torch is.
    from engine.async_engine import AsyncEngine
    from engine.warm_up import warm_up
    from load_tests.prediction.stretched_engine import StretchedEngine

    engine = StretchedEngine.from_config(tier.engine)
    warm_up(engine)
    return AsyncEngine(engine, on_step)


FACTORIES: dict[str, EngineFactory] = {
    "stub": BatchingFactory(),
    "stretched": stretched_engine,
    "embedded": make_engine,
}
