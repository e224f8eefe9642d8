"""``ReplicaDirectory``: the registry, in each process, of the running replicas of each deployment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import ClassVar

ReplicaListener = Callable[[frozenset[str]], None]


class ReplicaDirectory:
    """The per-process registry of the running replicas, by deployment, with listeners for changes.

    PinnedRequestRouter publishes the replicas that Serve reports; LanePool listens. The registry is class state because
    Serve creates the request routers itself, from an import path, so that no object can be passed to them. It has a
    module of its own because Serve pickles the module of a request router by value, which would copy the registry.
    Listeners may be called from another thread.
    """

    _running: ClassVar[dict[str, frozenset[str]]] = {}  # replica ids by deployment
    _listeners: ClassVar[defaultdict[str, list[ReplicaListener]]] = defaultdict(list)

    @classmethod
    def publish(cls, deployment: str, replica_ids: frozenset[str]) -> None:
        """Records the ids of the running replicas of ``deployment``, then calls its listeners with them."""
        cls._running[deployment] = replica_ids
        for listener in list(cls._listeners[deployment]):
            listener(replica_ids)

    @classmethod
    def none_runs(cls, deployment: str) -> bool:
        """Returns whether ``deployment`` is known to have no running replica."""
        return cls._running.get(deployment) == frozenset()

    @classmethod
    def subscribe(cls, deployment: str, listener: ReplicaListener) -> None:
        """Calls ``listener`` with the ids of the running replicas: now, if they are known, and after each change.
        ``deployment`` is the deployment's name."""
        cls._listeners[deployment].append(listener)
        if deployment in cls._running:
            listener(cls._running[deployment])

    @classmethod
    def unsubscribe(cls, deployment: str, listener: ReplicaListener) -> None:
        """Stops calling ``listener``. Raises ValueError if it is not subscribed."""
        cls._listeners[deployment].remove(listener)
