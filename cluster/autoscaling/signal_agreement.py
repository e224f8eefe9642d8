"""``confirmed``: limits the need of a tier to what at least two signals support."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cluster.autoscaling.decision import Need, Reason

MAX_ALONE = 2.0
"""A need counts at most as this many times what the next source supports."""

SOURCES: dict[Reason, str] = {
    Reason.BACKLOG: "queues",
    Reason.KV_DEMAND: "requests at work",
    Reason.OBSERVED_TTFT: "latencies",
    Reason.REFUSALS: "refusals",
    Reason.FLOW: "arrivals",
}
"""What each signal is measured by. Signals of one source do not confirm each other. Batch work with a deadline is known
from its jobs and needs no confirmation."""


class Confirmed(NamedTuple):
    """The confirmed need of a tier. ``top`` is the signal that asks for most, None if there is none. ``asked`` is the
    number of replicas that it asks for, ``replicas`` the number that the other signals confirm. ``besides`` is the
    highest confirmed need of all signals but the flow. ``is_late``: a P99 of the TTFT misses its objective."""

    replicas: float
    top: Need | None
    asked: float
    besides: float = 0.0
    is_late: bool = False


def confirmed(needs: Sequence[Need], ready: int, at_work: float) -> Confirmed:
    """Returns the highest of ``needs``, at most MAX_ALONE times the highest of any other source.

    ``at_work`` is the number of replicas for the flow that the running requests imply; 0: unknown.

    So a metric that is wrong by a factor of 100 does not start 100 times the replicas. Real requests show in two
    sources: in arrivals, and in queues or running requests. If the flow is unknown, there may be no second source in
    time: a single source may then ask for up to twice the ``ready`` replicas. One replica is always allowed.
    """
    by_source: dict[str, float] = {SOURCES[Reason.KV_DEMAND]: at_work}
    for need in needs:
        if need.reason in SOURCES:
            source = SOURCES[need.reason]
            by_source[source] = max(by_source.get(source, 0.0), need.replicas)
    ranked = sorted(by_source.values(), reverse=True)
    second = ranked[1] if len(ranked) > 1 else 0.0
    if SOURCES[Reason.FLOW] not in by_source:
        second = max(second, ready)
    limit = MAX_ALONE * max(0.5, second)
    allowed = [(_allowed(need, limit), need.replicas, need) for need in needs]
    if not allowed:
        return Confirmed(0.0, None, 0.0)
    replicas, asked, top = max(allowed, key=lambda each: each[:2])
    besides = max((each for each, _, need in allowed if need.reason is not Reason.FLOW), default=0.0)
    is_late = any(need.reason is Reason.OBSERVED_TTFT for need in needs)
    return Confirmed(replicas, top, asked, besides, is_late)


def _allowed(need: Need, limit: float) -> float:
    return min(need.replicas, limit) if need.reason in SOURCES else need.replicas
