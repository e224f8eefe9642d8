"""``InProcessClient``: replicas with real engines in this process, which a lane pool reaches without Serve."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

from cluster.config import TierConfig
from cluster.lanes.dataclass_codec import Record
from cluster.lanes.lane_messages import LaneItem
from cluster.replica.tier_replica import OnStep, ReplicaEngine, TierReplica
from engine.async_engine import AsyncEngine
from engine.engine import Engine
from load_tests.prediction.stretched_engine import StretchedEngine


def stretched_engine(tier: TierConfig, on_step: OnStep) -> ReplicaEngine:
    """Returns the tier's engine with the step times of a larger model, on a thread of its own."""
    return AsyncEngine(StretchedEngine.from_config(tier.engine), on_step)


def plain_engine(tier: TierConfig, on_step: OnStep) -> ReplicaEngine:
    """Returns the tier's engine, on a thread of its own."""
    return AsyncEngine(Engine.from_config(tier.engine), on_step)


class InProcessClient:
    """Implements ``cluster.lanes.lane.ReplicaClient`` with direct calls."""

    def __init__(self, replicas: Mapping[str, TierReplica]) -> None:
        self._replicas = replicas

    async def connect(self) -> None:
        """Does nothing: the replicas are here."""

    async def lane(self, replica_id: str, lane_id: str) -> AsyncGenerator[LaneItem, None]:
        items = self._replicas[replica_id].lane(lane_id, replica_id=replica_id)
        try:
            async for item in items:
                yield item
        finally:
            await items.aclose()

    async def submit(
        self, replica_id: str, lane_id: str, request: Record, *, validated_at_once: bool = False
    ) -> Record | None:
        return await self._replicas[replica_id].submit(lane_id, request, replica_id=replica_id)

    async def abort(self, replica_id: str, lane_id: str, request_ids: Sequence[str]) -> None:
        await self._replicas[replica_id].abort(lane_id, request_ids, replica_id=replica_id)
