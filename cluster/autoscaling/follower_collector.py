"""``collect_follower``: turns what Ray Serve knows of a follower's deployment into its ``FollowerSnapshot``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.autoscaling.busy_report import BusyCounts, counts_of
from cluster.autoscaling.snapshot import FollowerSnapshot
from cluster.autoscaling.snapshot_collector import ReplicaView, TierView

FORGOTTEN_S = 600.0
"""Seconds after which a replica is forgotten that Serve does not name any more. One that is updated or recovered is
missing for a moment, and goes on counting where it was."""

NOTHING = BusyCounts(0, 0.0)


@dataclass(frozen=True, slots=True)
class _Known:
    """The last report of a replica. ``reported_at_s`` is its instant by the replica's clock; None: there was none."""

    named_at_s: float  # when Serve last named it
    reported_at_s: float | None = None
    observed_at_s: float = 0.0  # when that report was first seen
    counts: BusyCounts | None = None  # None: its next report has counts of before it was known


@dataclass(frozen=True, slots=True)
class FollowerMemory:
    """The state that ``collect_follower`` keeps of a deployment. ``FollowerMemory()`` is that before the first call.
    ``total`` has what its replicas, those that are gone included, have counted since."""

    replicas: Mapping[str, _Known] = field(default_factory=dict)
    total: BusyCounts = NOTHING
    begun: bool = False


def collect_follower(
    memory: FollowerMemory, view: TierView, at_s: float, stale_s: float
) -> tuple[FollowerMemory, FollowerSnapshot]:
    """Returns the next memory and the snapshot of a follower at the instant ``at_s``.

    A report counts as fresh for ``stale_s`` seconds from the instant at which it is first seen here. Replicas that the
    first call finds may have counted for long: they count from their next reports on.
    """
    start = NOTHING if memory.begun else None
    known = {name: each for name, each in memory.replicas.items() if at_s - each.named_at_s < FORGOTTEN_S}
    requests, busy_s = memory.total.requests, memory.total.busy_s
    fresh = 0
    for replica in view.replicas:
        before = known.get(replica.replica_id, _Known(at_s, counts=start))
        after = known[replica.replica_id] = _after(before, replica, at_s)
        if before.counts is not None and after.counts is not None:
            requests += max(0, after.counts.requests - before.counts.requests)
            busy_s += max(0.0, after.counts.busy_s - before.counts.busy_s)
        fresh += after.reported_at_s is not None and at_s - after.observed_at_s <= stale_s
    total = BusyCounts(requests, busy_s)
    ready = len(view.replicas)
    return (
        FollowerMemory(known, total, begun=True),
        FollowerSnapshot(view.name, view.target, ready, requests, busy_s, fresh),
    )


def _after(before: _Known, replica: ReplicaView, at_s: float) -> _Known:
    """Returns what is known of a replica that Serve names at ``at_s``. A report that cannot be read is none."""
    counts = counts_of(replica.numbers)
    if replica.reported_at_s is None or replica.reported_at_s == before.reported_at_s or counts is None:
        return _Known(at_s, before.reported_at_s, before.observed_at_s, before.counts)
    return _Known(at_s, replica.reported_at_s, at_s, counts)
