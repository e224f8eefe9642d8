"""The router's TierBackend on Ray Serve: pick a replica, stream through its lane, place again if it is lost early.

A request whose replica dies before anything was sent to the client is placed once more; after that the loss is raised
as ReplicaLostError and the client gets an error frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from cluster.config import PlacementConfig
from cluster.lanes.lane import Lane
from cluster.lanes.messages import LaneItem
from cluster.lanes.pool import LanePool
from cluster.lanes.replica_directory import ReplicaDirectory
from engine.api import Delta, EngineError, GenerationRequest
from router.ports.tiers import ReplicaLostError, TierStatus

PLACEMENTS = 2  # tries per request, as long as nothing has reached the client
SERVE_FAULTS = (RayError, RayServeException, OSError)


class ServeCalls:
    """A lane's calls to its replica, through a Serve handle that routes by PinnedRequestRouter."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._streaming = handle.options(stream=True, response_serialization="pickle")
        self._unary = handle.options(request_serialization="pickle", response_serialization="pickle")

    async def lane(self, replica_id: str, lane_id: str) -> AsyncGenerator[LaneItem, None]:
        items = cast(DeploymentResponseGenerator[LaneItem], self._streaming.lane.remote(lane_id, replica_id=replica_id))
        try:
            async for item in items:
                yield item
        except SERVE_FAULTS as error:
            raise ReplicaLostError(f"Replica {replica_id} was lost: {type(error).__name__}") from error
        finally:
            items.cancel()

    async def submit(self, replica_id: str, lane_id: str, request: GenerationRequest) -> EngineError | None:
        try:
            refusal: EngineError | None = await self._unary.submit.remote(lane_id, request, replica_id=replica_id)
        except SERVE_FAULTS as error:
            raise ReplicaLostError(f"Replica {replica_id} was lost: {type(error).__name__}") from error
        return refusal

    async def abort(self, replica_id: str, lane_id: str, request_ids: Sequence[str]) -> None:
        try:
            await self._unary.abort.remote(lane_id, list(request_ids), replica_id=replica_id)
        except SERVE_FAULTS as error:
            raise ReplicaLostError(f"Replica {replica_id} was lost: {type(error).__name__}") from error

    async def connect(self) -> None:
        """Make Serve start telling this process about the deployment's replicas."""
        try:
            await self._unary.broadcast("describe").results_async()
        except SERVE_FAULTS:
            return  # a replica that failed to answer says nothing about the directory, which is all we came for


class ServeBackend:
    """Every tier, reached through Serve. Implements ``router.ports.tiers.TierBackend``."""

    def __init__(self, tiers: dict[str, DeploymentHandle[Any]], config: PlacementConfig) -> None:
        self._pools: dict[str, LanePool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        for name, handle in tiers.items():
            calls = ServeCalls(handle)
            pool = self._pools[name] = LanePool(name, calls, config)
            ReplicaDirectory.subscribe(name, pool.replicas_changed)
            task = asyncio.get_running_loop().create_task(calls.connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def status(self) -> Sequence[TierStatus]:
        return [pool.status() for pool in self._pools.values()]

    async def generate(self, tier: str, request: GenerationRequest) -> AsyncGenerator[Sequence[Delta], None]:
        pool = self._pools[tier]
        lane: Lane | None = None
        for placement in range(PLACEMENTS):
            if lane is not None:
                # What the lost placement left behind must not be taken for this one.
                request = replace(request, request_id=f"{request.request_id}-{placement}")
            lane = await pool.acquire(request, avoid=lane)
            started = False
            try:
                async with aclosing(lane.generate(request)) as batches:
                    async for deltas in batches:
                        started = True
                        yield deltas
                return
            except ReplicaLostError:
                if started or placement == PLACEMENTS - 1:
                    raise

    async def close(self) -> None:
        """Close every lane; requests still running are aborted by their replicas."""
        for name, pool in self._pools.items():
            ReplicaDirectory.unsubscribe(name, pool.replicas_changed)
            await pool.close()
