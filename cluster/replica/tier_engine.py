"""``make_engine``: the engine of a tier.

It is not in ``cluster/app.py``: replicas find it by its module, and would import the router and all else of the
application with it, which takes 0.9 s of CPU and 39 MB in each of them.
"""

from __future__ import annotations

from cluster.config import TierConfig
from cluster.replica.rank_launcher import PlacedRanks
from cluster.replica.tier_replica import OnStep, ReplicaEngine


def make_engine(tier: TierConfig, on_step: OnStep) -> ReplicaEngine:
    """Loads the model of a tier, warms its engine up and returns it, not started yet. Called in the replica's process.

    The engine calls ``on_step`` on its own thread, with the deltas of each step. Raises as ``Engine.from_config`` and
    ``warm_up`` do.
    """
    # Imported in the replicas alone: torch takes 3 s, and building the application needs none of it.
    from engine.async_engine import AsyncEngine
    from engine.engine import Engine
    from engine.warm_up import warm_up

    launcher = PlacedRanks(tier) if tier.engine.tensor_parallel > 1 else None
    engine = Engine.from_config(tier.engine, launcher, tier.latency_objectives_s)
    try:
        warm_up(engine)
    except BaseException:
        engine.close()
        raise
    return AsyncEngine(engine, on_step)
