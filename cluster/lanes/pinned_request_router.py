"""``PinnedRequestRouter``: the Serve request router of the tiers' deployments, which sends a call to a given replica.

Serve's own request routers balance calls over all replicas, but all calls of a lane must reach the same replica.
"""

from __future__ import annotations

import random
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from cluster.lanes.replica_directory import ReplicaDirectory
from router.ports.tier_backend import ReplicaLostError


class PinnedRequestRouter(RequestRouter):
    """The request router that sends a call to the replica named by its keyword argument ``replica_id``.

    A call without the argument goes to a random replica. A call to a replica that does not run any more fails with
    ReplicaLostError. Serve reports changes of the running replicas here; they are published in the ReplicaDirectory.
    """

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Publishes the ids of the running replicas in the ReplicaDirectory. Serve calls it with all of them after each
        change."""
        super().update_replicas(replicas)
        ids = frozenset(replica.replica_id.unique_id for replica in replicas)
        ReplicaDirectory.publish(self._deployment_id.name, ids)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Returns groups of candidates, which Serve tries in order: the wanted replica alone, or all in random order.
        Fails a call whose replica is gone: sets ReplicaLostError on its future. Serve calls it for each call;
        ``pending_request`` None: without one."""
        wanted: Any = pending_request.kwargs.get("replica_id") if pending_request is not None else None
        if pending_request is None or wanted is None:
            return [[replica] for replica in random.sample(candidate_replicas, len(candidate_replicas))]
        chosen = [replica for replica in candidate_replicas if replica.replica_id.unique_id == wanted]
        if chosen:
            return [chosen]
        # The replica does not run any more. Serve would retry an empty choice for ever, and an exception here would end
        # the task that also routes other requests. So the request is failed, and Serve skips it because it is done.
        if not pending_request.future.done():
            pending_request.future.set_exception(ReplicaLostError(f"Replica {wanted} is no longer running.", wanted))
        return [candidate_replicas]
