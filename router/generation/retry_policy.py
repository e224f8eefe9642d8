"""The retry policy: whether a failed request is tried again on another replica, or its client gets the error. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from router.config.failover import FailoverConfig
from router.ports.tier_backend import (
    BackendError,
    ModelVersionError,
    PoisonRequestError,
    ReplicaDrainedError,
    ReplicaError,
    ReplicaLostError,
    ReplicaOverloadedError,
    ReplicaUnreachableError,
    TierUnavailableError,
)

MAX_PAUSE_S = 1.0
"""The longest pause before full replicas are asked again to take over an answer."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The decision to try once more, after waiting ``after_s`` seconds. ``avoid`` holds the ids of the replicas that
    must not get the attempt. ``any_version``: a replica with another version of the model may continue the answer."""

    avoid: frozenset[str]
    after_s: float = 0.0
    any_version: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The decision not to try again. The client gets ``error``."""

    error: BackendError


def next_attempt(
    failures: Sequence[ReplicaError],
    began: bool,
    ready: Collection[str],
    config: FailoverConfig,
    waited_s: float = 0.0,
    fruitful: Collection[int] = (),
    alone: Collection[int] = (),
) -> Attempt | GiveUp:
    """Returns the decision after ``failures``: all failures of one engine request so far, oldest first, at least one.
    ``fruitful`` has the indices of those before which the attempt had got something from its replica, ``alone`` those
    of replicas that were lost while it was this request's turn to begin there (``SuspectRequests``).

    ``began``: a part of the answer was sent, so that the next attempt continues it, or the router has admitted the
    request, and must not refuse it any more. ``ready`` holds the ids of the tier's ready replicas. ``waited_s`` is the
    time since the last replica was lost, or since the first refusal, in seconds.

    After a refusal (a full replica, another release or version) every other ready replica is tried, since a refusal
    costs nothing. What has begun waits for full ones up to ``config.wait_s``; then it fails with the loss of its last
    replica, or with TierUnavailableError if it has lost none, and is not refused. A request is given up that has
    lost ``config.max_lost_replicas`` replicas before it got anything from them, since it may have killed them. Replicas
    that the request never reached, and planned moves, do not count for that. Nor does a replica that the request had
    got something from, since it may have stood there by chance; unless the next one is lost in the request's turn.
    """
    latest = failures[-1]
    if isinstance(latest, ReplicaLostError | ReplicaDrainedError):
        return _after_loss(failures, latest, ready, config, fruitful, alone)
    failed = frozenset(failure.replica_id for failure in failures)
    if frozenset(ready) - failed and latest.replica_id:  # a replica without an id could not be avoided
        return Attempt(failed)
    overload = overload_with_shortest_wait(failures)
    if began and overload is not None and waited_s < config.wait_s:
        full = {failure.replica_id for failure in failures if isinstance(failure, ReplicaOverloadedError)}
        return Attempt(failed - full, after_s=min(overload.retry_after_s, MAX_PAUSE_S))
    if isinstance(latest, ModelVersionError):
        if config.other_version == "end":
            return GiveUp(latest)
        lost = {failure.replica_id for failure in failures if isinstance(failure, ReplicaLostError)}
        return Attempt(frozenset(lost), any_version=True)
    if began and overload is not None:
        return GiveUp(_kept_waiting(failures, config.wait_s))
    return GiveUp(overload or latest)


def _kept_waiting(failures: Sequence[ReplicaError], wait_s: float) -> BackendError:
    """Returns the error of a request that must not be refused, and for which no replica had room for ``wait_s``."""
    losses = (each for each in reversed(failures) if isinstance(each, ReplicaLostError | ReplicaDrainedError))
    return next(losses, TierUnavailableError(f"All replicas of the model have been full for {wait_s:g} s."))


def _after_loss(
    failures: Sequence[ReplicaError],
    latest: ReplicaError,
    ready: Collection[str],
    config: FailoverConfig,
    fruitful: Collection[int],
    alone: Collection[int],
) -> Attempt | GiveUp:
    """Returns what to do after a replica was lost or has handed the request over."""
    broken = [failure for failure in failures if isinstance(failure, ReplicaLostError)]
    lost = [failure.replica_id for failure in broken if not isinstance(failure, ReplicaUnreachableError)]
    fruitless = sum(is_fruitless(failure, place in fruitful) for place, failure in enumerate(failures))
    convicted = len(failures) - 1 in alone and len(lost) >= config.max_lost_replicas
    if isinstance(latest, ReplicaLostError) and (
        convicted or fruitless >= config.max_lost_replicas or len(broken) >= config.max_attempts
    ):
        return GiveUp(PoisonRequestError(lost) if len(lost) > 1 else latest)
    failed = frozenset(failure.replica_id for failure in failures)
    # Without another replica nothing is avoided: the backend waits for one, which may be the same one reconnected.
    return Attempt(failed if frozenset(ready) - failed else frozenset())


def is_fruitless(failure: ReplicaError, fruitful: bool) -> bool:
    """Returns whether a replica was lost while it ran a request, and before the request got anything from it.
    ``fruitful``: it had got something."""
    return isinstance(failure, ReplicaLostError) and not isinstance(failure, ReplicaUnreachableError) and not fruitful


def overload_with_shortest_wait(failures: Sequence[ReplicaError]) -> ReplicaOverloadedError | None:
    """Returns the failure of a full replica with the shortest ``retry_after_s``; None if no replica was full."""
    full = [failure for failure in failures if isinstance(failure, ReplicaOverloadedError)]
    return min(full, key=lambda failure: failure.retry_after_s, default=None)
