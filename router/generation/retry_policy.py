"""The retry policy: whether a failed request is tried again on another replica, or its client gets the error. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from router.ports.tier_backend import BackendError, ReplicaError, ReplicaLostError, ReplicaOverloadedError


@dataclass(frozen=True, slots=True)
class Attempt:
    """The decision to try once more. ``avoid`` holds the ids of the replicas that must not get the attempt."""

    avoid: frozenset[str]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The decision not to try again. The client gets ``error``."""

    error: BackendError


def next_attempt(
    failures: Sequence[ReplicaError], deltas_sent: int, ready: Collection[str], max_lost: int
) -> Attempt | GiveUp:
    """Returns what to do after ``failures``: all of one engine request, oldest first, at least one.

    ``deltas_sent`` counts the deltas that the request has yielded. An answer that has begun is never started again.
    ``ready`` holds the ids of the tier's ready replicas. After a refusal (a full replica, another release) every other
    ready replica is tried, since a refusal costs nothing. After ``max_lost`` lost replicas the request is given up,
    since the request itself may have killed them.
    """
    latest = failures[-1]
    if deltas_sent:
        return GiveUp(latest)
    failed = frozenset(failure.replica_id for failure in failures)
    others = frozenset(ready) - failed
    if isinstance(latest, ReplicaLostError):
        if sum(isinstance(failure, ReplicaLostError) for failure in failures) >= max_lost:
            return GiveUp(latest)
        # Without another replica nothing is avoided: the backend waits for one, which may be the same one reconnected.
        return Attempt(failed if others else frozenset())
    if others and latest.replica_id:  # a replica without an id could not be avoided
        return Attempt(failed)
    return GiveUp(overload_with_shortest_wait(failures) or latest)


def overload_with_shortest_wait(failures: Sequence[ReplicaError]) -> ReplicaOverloadedError | None:
    """Returns the failure of a full replica with the shortest ``retry_after_s``; None if no replica was full."""
    full = [failure for failure in failures if isinstance(failure, ReplicaOverloadedError)]
    return min(full, key=lambda failure: failure.retry_after_s, default=None)
