"""Hand-written engines and calls for the cluster's own ports."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence

from cluster.config import TierConfig
from cluster.lanes.messages import LaneItem
from cluster.replica.tier_replica import OnStep, TierReplica
from engine.api import (
    Delta,
    EngineError,
    EngineStats,
    FinishReason,
    GenerationRequest,
    ModelInfo,
    OverloadedError,
    Usage,
)
from engine.config import EngineConfig
from router.ports.tiers import ReplicaLostError


class SteppedEngine:
    """An engine that steps only when told to: each step gives every request one token, its own number."""

    def __init__(self, on_step: OnStep, *, capacity: int = 100) -> None:
        self.on_step = on_step
        self.capacity = capacity
        self.live: dict[str, tuple[GenerationRequest, int]] = {}
        self.aborted: list[str] = []
        self.closed = False
        self.steps = 0

    def start(self) -> None: ...

    def close(self) -> None:
        self.closed = True

    def submit(self, request: GenerationRequest) -> None:
        if len(self.live) >= self.capacity:
            raise OverloadedError("full", 2.0)
        self.live[request.request_id] = (request, 0)

    def abort(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            if self.live.pop(request_id, None) is not None:
                self.aborted.append(request_id)

    def step(self) -> None:
        self.steps += 1
        deltas = []
        for request_id, (request, count) in list(self.live.items()):
            done = count + 1 == request.sampling.max_tokens
            usage = Usage(1, count + 1, 0) if done else None
            deltas.append(
                Delta(request_id, (count,), f"{count} ", FinishReason.LENGTH if done else None, usage),
            )
            self.live[request_id] = (request, count + 1)
            if done:
                del self.live[request_id]
        self.on_step(deltas)

    def stats(self) -> EngineStats:
        return EngineStats(len(self.live), 0, 100, len(self.live), 0, self.steps, 0, 0, 0, 0, len(self.aborted), 0)

    def check_health(self) -> None: ...

    @property
    def model_info(self) -> ModelInfo:
        return ModelInfo("stepped", 128, 256)


class LocalReplica:
    """A TierReplica in this process with its SteppedEngine at hand."""

    def __init__(self, *, capacity: int = 100) -> None:
        self.engine: SteppedEngine

        def make(_: TierConfig, on_step: OnStep) -> SteppedEngine:
            self.engine = SteppedEngine(on_step, capacity=capacity)
            return self.engine

        self.actor = TierReplica(TierConfig(engine=EngineConfig(model="none")), make)
        self.dead = False


class LocalCalls:
    """ReplicaCalls without Serve: straight calls to replicas in this process."""

    def __init__(self, replicas: dict[str, LocalReplica]) -> None:
        self.replicas = replicas
        self.lanes_opened = 0
        self.aborts: list[list[str]] = []

    def _reach(self, replica_id: str) -> TierReplica:
        replica = self.replicas.get(replica_id)
        if replica is None or replica.dead:
            raise ReplicaLostError(f"{replica_id} is gone")
        return replica.actor

    async def lane(self, replica_id: str, lane_id: str) -> AsyncGenerator[LaneItem, None]:
        self.lanes_opened += 1
        items = self._reach(replica_id).lane(lane_id, replica_id=replica_id)
        try:
            async for item in items:
                self._reach(replica_id)
                yield item
        finally:
            await items.aclose()

    async def submit(self, replica_id: str, lane_id: str, request: GenerationRequest) -> EngineError | None:
        return await self._reach(replica_id).submit(lane_id, request, replica_id=replica_id)

    async def abort(self, replica_id: str, lane_id: str, request_ids: Sequence[str]) -> None:
        self.aborts.append(list(request_ids))
        await self._reach(replica_id).abort(lane_id, request_ids, replica_id=replica_id)
