"""``ReplicaDirectory``: the running replicas of each deployment, as Serve last reported them to this process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import ClassVar

ReplicaListener = Callable[[frozenset[str]], None]


class ReplicaDirectory:
    """The running replicas of each deployment, as Serve last reported them to this process.

    Serve builds its request routers itself, from an import path and JSON, and offers no way to hand one an object; this
    class is the one place where both sides of a process meet. It has a module of its own because Serve pickles the
    module of a request router by value, which would give each side a directory of its own. Listeners may be called
    from another thread.
    """

    _running: ClassVar[dict[str, frozenset[str]]] = {}
    _listeners: ClassVar[defaultdict[str, list[ReplicaListener]]] = defaultdict(list)

    @classmethod
    def publish(cls, deployment: str, replica_ids: frozenset[str]) -> None:
        """Record the running replicas of ``deployment``, then call the listeners with them."""
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
