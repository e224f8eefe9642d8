"""``PinnedRequestRouter``: Serve's request router for the tiers' handles, which sends a call to the replica it names.

Serve's own routers balance requests over all replicas; a lane needs every one of its calls to reach the same replica. A
call that carries ``replica_id`` goes to that replica or fails. Each change in the set of running replicas is published
in the ReplicaDirectory of this process.
"""

from __future__ import annotations

import random
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from cluster.lanes.replica_directory import ReplicaDirectory
from router.ports.tier_backend import ReplicaLostError


class PinnedRequestRouter(RequestRouter):
    """Sends a call to the replica named by its keyword argument ``replica_id``; without one, to any replica."""

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        ids = frozenset(replica.replica_id.unique_id for replica in replicas)
        ReplicaDirectory.publish(self._deployment_id.name, ids)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        wanted: Any = pending_request.kwargs.get("replica_id") if pending_request is not None else None
        if pending_request is None or wanted is None:
            return [[replica] for replica in random.sample(candidate_replicas, len(candidate_replicas))]
        chosen = [replica for replica in candidate_replicas if replica.replica_id.unique_id == wanted]
        if chosen:
            return [chosen]
        # The replica is gone. Serve would repeat an empty choice for ever, and an exception here would end the task
        # that routes other requests too. So this request fails, and Serve moves on when it finds it done.
        if not pending_request.future.done():
            pending_request.future.set_exception(ReplicaLostError(f"Replica {wanted} is no longer running.", wanted))
        return [candidate_replicas]
