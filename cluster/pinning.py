"""Reaching one given replica through a Serve handle, and knowing which replicas there are.

Serve's handles balance requests as they see fit; a lane needs every one of its calls to reach the same replica. So the
tiers' handles route with PinnedRequestRouter: a call that carries ``replica_id`` goes to that replica or fails, and each
change in the set of running replicas is told to the ReplicaDirectory of this process.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any, ClassVar

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from router.ports import ReplicaLostError

ReplicaListener = Callable[[frozenset[str]], None]


class ReplicaDirectory:
    """The running replicas of each deployment, as Serve last told this process.

    Serve builds its request routers itself, from an import path and JSON, and offers no way to hand one an object; this
    class is the one place where both sides of a process meet. Listeners may be called from another thread.
    """

    _running: ClassVar[dict[str, frozenset[str]]] = {}
    _listeners: ClassVar[defaultdict[str, list[ReplicaListener]]] = defaultdict(list)

    @classmethod
    def publish(cls, deployment: str, replica_ids: frozenset[str]) -> None:
        """Note the running replicas of ``deployment`` and tell the listeners."""
        cls._running[deployment] = replica_ids
        for listener in list(cls._listeners[deployment]):
            listener(replica_ids)

    @classmethod
    def subscribe(cls, deployment: str, listener: ReplicaListener) -> None:
        """Call ``listener`` with the running replicas now (if known) and after each change."""
        cls._listeners[deployment].append(listener)
        if deployment in cls._running:
            listener(cls._running[deployment])

    @classmethod
    def unsubscribe(cls, deployment: str, listener: ReplicaListener) -> None:
        """Stop calling ``listener``."""
        cls._listeners[deployment].remove(listener)


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
        # The replica is gone. An empty answer would be asked again for ever, and an exception here would end the task
        # that routes other requests too: so fail this request, and return any rank for Serve to look at it and move on.
        if not pending_request.future.done():
            pending_request.future.set_exception(ReplicaLostError(f"Replica {wanted} is no longer running."))
        return [candidate_replicas]
