"""``ServeReplicaClient``: makes the calls of lanes to their replicas through a Serve handle."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from cluster.lanes.dataclass_codec import Record
from cluster.lanes.lane_messages import LaneItem, fault_in, takes_several
from cluster.lanes.replica_directory import ReplicaDirectory
from cluster.lanes.submission_batches import SubmissionBatches
from router.ports.tier_backend import ReplicaLostError

SERVE_FAULTS = (RayError, RayServeException, OSError)
"""The errors of a call through a handle that mean that the replica cannot answer."""


class ServeReplicaClient:
    """The client of one tier's replicas. Implements ``lane.ReplicaClient``.

    ``handle`` is that of the tier's deployment, whose request router is PinnedRequestRouter.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._deployment = handle.deployment_name
        self._streaming = handle.options(stream=True, response_serialization="pickle")
        self._unary = handle.options(request_serialization="pickle", response_serialization="pickle")
        self._batches = SubmissionBatches(self._submit_all)
        self._taking_several: set[str] = set()  # ids of lanes whose replicas take several requests in one call

    async def lane(self, replica_id: str, lane_id: str) -> AsyncGenerator[LaneItem, None]:
        self._check_running(replica_id)
        items = cast(DeploymentResponseGenerator[LaneItem], self._streaming.lane.remote(lane_id, replica_id=replica_id))
        try:
            async for item in items:
                if takes_several(item):
                    self._taking_several.add(lane_id)
                yield item
        except SERVE_FAULTS as error:
            raise _lost(replica_id, error) from error
        finally:
            self._taking_several.discard(lane_id)
            items.cancel()

    async def submit(
        self, replica_id: str, lane_id: str, request: Record, *, validated_at_once: bool = False
    ) -> Record | None:
        self._check_running(replica_id)
        if validated_at_once and lane_id in self._taking_several:
            reply = await self._batches.submit((replica_id, lane_id), request)
            if (fault := fault_in(reply)) is not None:
                raise ReplicaLostError(f"Replica {replica_id} was lost: {fault}", replica_id)
            return reply
        return await self._submit(replica_id, lane_id, request)

    async def _submit(self, replica_id: str, lane_id: str, request: Record) -> Record | None:
        try:
            refusal: Record | None = await self._unary.submit.remote(lane_id, request, replica_id=replica_id)
        except SERVE_FAULTS as error:
            raise _lost(replica_id, error) from error
        return refusal

    async def _submit_all(
        self, replica_and_lane: tuple[str, str], requests: Sequence[Record]
    ) -> Sequence[Record | None]:
        """Submits requests in one call, which costs as much as one for a single request."""
        replica_id, lane_id = replica_and_lane
        self._check_running(replica_id)  # again, since this is another turn
        if len(requests) == 1:
            return [await self._submit(replica_id, lane_id, requests[0])]
        try:
            refusals: list[Record | None] = await self._unary.submit_all.remote(
                lane_id, list(requests), replica_id=replica_id
            )
        except SERVE_FAULTS as error:
            raise _lost(replica_id, error) from error
        return refusals

    async def abort(self, replica_id: str, lane_id: str, request_ids: Sequence[str]) -> None:
        self._check_running(replica_id)
        try:
            await self._unary.abort.remote(lane_id, list(request_ids), replica_id=replica_id)
        except SERVE_FAULTS as error:
            raise _lost(replica_id, error) from error

    async def connect(self) -> None:
        try:
            await self._unary.broadcast("ping").results_async()
        except SERVE_FAULTS:
            return  # the call only serves to make Serve publish the replicas, which it has done even if one failed

    def _check_running(self, replica_id: str) -> None:
        """Raises ReplicaLostError if no replica runs. Serve would hold the call, and start a replica for it without the
        autoscaler."""
        if ReplicaDirectory.none_runs(self._deployment):
            raise ReplicaLostError(f"Replica {replica_id} is no longer running.", replica_id)


def _lost(replica_id: str, error: Exception) -> ReplicaLostError:
    return ReplicaLostError(f"Replica {replica_id} was lost: {type(error).__name__}", replica_id)
