"""What the scaler knows of a follower's deployment, from its replicas' reports."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.autoscaling.busy_counter import BusyCounter
from cluster.autoscaling.busy_report import BUSY_S, REQUESTS, BusyCounts, counts_of
from cluster.autoscaling.follower_collector import FollowerMemory, collect_follower
from cluster.autoscaling.snapshot import FollowerSnapshot
from cluster.autoscaling.snapshot_collector import ReplicaView, TierView

STALE_S = 5.0


class Deployment:
    """The replicas of a follower, as Serve reports them to the scaler."""

    def __init__(self) -> None:
        self.memory = FollowerMemory()
        self.at_s = 100.0
        self.reports: dict[str, ReplicaView] = {}

    def report(self, replica: str, requests: int, busy_s: float = 0.0) -> None:
        numbers = {REQUESTS: float(requests), BUSY_S: busy_s}
        self.reports[replica] = ReplicaView(replica, self.at_s, numbers)

    def look(self, *running: str) -> FollowerSnapshot:
        self.at_s += 1
        replicas = tuple(self.reports.get(name, ReplicaView(name)) for name in running)
        view = TierView("Embedder", len(running), replicas)
        self.memory, seen = collect_follower(self.memory, view, self.at_s, STALE_S)
        return seen


def test_requests_of_replicas_that_are_gone_stay_counted() -> None:
    deployment = Deployment()
    deployment.look("a")
    deployment.report("a", 10, 1.0)
    deployment.look("a")
    deployment.report("a", 30, 3.0)
    assert deployment.look("a", "b").requests == 20  # those before the first look may be of long ago
    deployment.report("b", 5, 0.5)
    seen = deployment.look("b")
    assert seen.requests == 25
    assert seen.busy_s == pytest.approx(2.5)


def test_a_replica_that_was_missing_for_a_moment_is_not_counted_twice() -> None:
    deployment = Deployment()
    deployment.look()
    deployment.report("a", 10)
    assert deployment.look("a").requests == 10
    assert deployment.look().requests == 10
    deployment.report("a", 12)
    assert deployment.look("a").requests == 12


def test_a_replica_that_stops_reporting_is_not_fresh() -> None:
    deployment = Deployment()
    deployment.report("a", 10)
    deployment.report("b", 10)
    assert deployment.look("a", "b").fresh == 2
    for second in range(7):
        deployment.report("a", 10 + second)
        seen = deployment.look("a", "b")
    assert (seen.ready, seen.fresh) == (2, 1)


@pytest.mark.parametrize(
    "numbers", [{}, {REQUESTS: 1.0}, {REQUESTS: float("nan"), BUSY_S: 1.0}, {REQUESTS: 1.0, BUSY_S: -1.0}]
)
def test_a_report_that_makes_no_sense_is_none(numbers: dict[str, float]) -> None:
    assert counts_of(numbers) is None
    deployment = Deployment()
    deployment.reports["a"] = ReplicaView("a", 1.0, numbers)
    assert deployment.look("a").fresh == 0


def test_a_replica_counts_its_requests_and_the_busy_seconds_since_it_was_loaded() -> None:
    clock = iter([3.0, 4.5])
    busy = BusyCounter(lambda: next(clock))
    busy.count()
    busy.count()
    assert counts_of(busy.numbers()) == BusyCounts(2, 1.5)


@given(st.lists(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9)), max_size=6), max_size=30))
def test_whatever_replicas_come_and_go_each_request_is_counted_once(
    rounds: Sequence[Sequence[tuple[str, int]]],
) -> None:
    deployment = Deployment()
    deployment.look()
    served: dict[str, int] = {}
    before = 0
    for served_now in rounds:
        for replica, requests in served_now:
            served[replica] = served.get(replica, 0) + requests
            deployment.report(replica, served[replica])
        seen = deployment.look(*{replica for replica, _ in served_now})
        assert before <= seen.requests == sum(served.values())
        before = seen.requests
