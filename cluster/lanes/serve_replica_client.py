"""``ServeReplicaClient``: a lane's calls to its replica, made through a Serve handle."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from cluster.lanes.codec import Record
from cluster.lanes.messages import LaneItem
from router.ports.tier_backend import ReplicaLostError

SERVE_FAULTS = (RayError, RayServeException, OSError)


class ServeReplicaClient:
    """Calls the replicas of one tier. ``handle`` routes by PinnedRequestRouter. Implements ``lane.ReplicaClient``."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._streaming = handle.options(stream=True, response_serialization="pickle")
        self._unary = handle.options(request_serialization="pickle", response_serialization="pickle")

    async def lane(self, replica_id: str, lane_id: str) -> AsyncGenerator[LaneItem, None]:
        items = cast(DeploymentResponseGenerator[LaneItem], self._streaming.lane.remote(lane_id, replica_id=replica_id))
        try:
            async for item in items:
                yield item
        except SERVE_FAULTS as error:
            raise _lost(replica_id, error) from error
        finally:
            items.cancel()

    async def submit(self, replica_id: str, lane_id: str, request: Record) -> Record | None:
        try:
            refusal: Record | None = await self._unary.submit.remote(lane_id, request, replica_id=replica_id)
        except SERVE_FAULTS as error:
            raise _lost(replica_id, error) from error
        return refusal

    async def abort(self, replica_id: str, lane_id: str, request_ids: Sequence[str]) -> None:
        try:
            await self._unary.abort.remote(lane_id, list(request_ids), replica_id=replica_id)
        except SERVE_FAULTS as error:
            raise _lost(replica_id, error) from error

    async def connect(self) -> None:
        try:
            await self._unary.broadcast("ping").results_async()
        except SERVE_FAULTS:
            return  # a replica that failed to answer says nothing about the list of replicas, which is all we came for


def _lost(replica_id: str, error: Exception) -> ReplicaLostError:
    return ReplicaLostError(f"Replica {replica_id} was lost: {type(error).__name__}", replica_id)
