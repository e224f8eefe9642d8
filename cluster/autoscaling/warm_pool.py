"""The warm pool: replicas beyond a tier's target, which have loaded the model and serve nothing. Pure.

Serve is asked for the target and the warm replicas together. Of those that run, the oldest ones serve. So a raise of
the target makes warm replicas serve at once, and the replicas that Serve starts in their place are warm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cluster.autoscaling.decision import Decisions
from cluster.autoscaling.snapshot import ReplicaSnapshot, ReplicaState, TierSnapshot

RUNNING = (ReplicaState.READY, ReplicaState.WARM)


def serving_target(total: int, warm: int) -> int:
    """Returns the target of a tier whose deployment has been asked for ``total`` replicas, ``warm`` of them for the
    warm pool. A tier that is not at zero has one at least that serves."""
    return max(min(total, 1), total - warm)


def warm_ids(replicas: Iterable[ReplicaSnapshot], serving: int) -> frozenset[str]:
    """Returns the ids of the running ones of ``replicas`` that are warm if ``serving`` of them serve."""
    running = [each for each in replicas if each.state in RUNNING]
    oldest_first = sorted(running, key=lambda each: (each.since_s, each.replica_id))
    return frozenset(each.replica_id for each in oldest_first[serving:])


def warm_replicas(decisions: Decisions, tiers: Iterable[TierSnapshot]) -> Mapping[str, frozenset[str]]:
    """Returns the warm replicas of each tier once ``decisions`` count. ``tiers`` are those that they are made from."""
    return {
        tier.name: warm_ids(tier.replicas, decision.target)
        for tier in tiers
        if (decision := decisions.tiers.get(tier.name)) is not None and decision.warm
    }
