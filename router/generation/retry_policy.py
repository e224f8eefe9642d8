"""What follows a failed attempt: another one, elsewhere, or the error. Pure: failures in, a plan out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from router.ports.tier_backend import BackendError, ReplicaError, ReplicaLostError, ReplicaOverloadedError


@dataclass(frozen=True, slots=True)
class Attempt:
    """Try once more. ``avoid`` holds the ids of replicas that the attempt must not use."""

    avoid: frozenset[str]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Try no more; ``error`` is what the client is to be given."""

    error: BackendError


def next_attempt(
    failures: Sequence[ReplicaError], deltas_sent: int, ready: Collection[str], max_lost: int
) -> Attempt | GiveUp:
    """The step after ``failures``, which are those of one request, oldest first; at least one.

    ``deltas_sent`` counts the deltas that the request has yielded: an answer that has begun is not started again.
    ``ready`` holds the ids of the tier's ready replicas. A refusal costs nothing, so every ready replica is tried. The
    request may be what kills a replica, so it is given up once ``max_lost`` replicas were lost.
    """
    latest = failures[-1]
    if deltas_sent:
        return GiveUp(latest)
    failed = frozenset(failure.replica_id for failure in failures)
    others = frozenset(ready) - failed
    if isinstance(latest, ReplicaLostError):
        if sum(isinstance(failure, ReplicaLostError) for failure in failures) >= max_lost:
            return GiveUp(latest)
        # Without another one the backend waits until a replica is ready, be it the same with a new connection.
        return Attempt(failed if others else frozenset())
    if others and latest.replica_id:  # a replica without a name could not be avoided
        return Attempt(failed)
    return GiveUp(mildest_overload(failures) or latest)


def mildest_overload(failures: Sequence[ReplicaError]) -> ReplicaOverloadedError | None:
    """Of the replicas that were full the refusal with the shortest wait; None if none was."""
    full = [failure for failure in failures if isinstance(failure, ReplicaOverloadedError)]
    return min(full, key=lambda failure: failure.retry_after_s, default=None)
