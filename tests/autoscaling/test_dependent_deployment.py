from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.autoscaling.config import AutoscalingConfig, FollowerConfig
from cluster.autoscaling.decision import Reason
from cluster.autoscaling.explain import explain
from cluster.autoscaling.policy import AutoscalerState, decide
from cluster.autoscaling.snapshot import FollowerSnapshot, Snapshot
from tests.autoscaling.snapshots import START_S

CONFIG = AutoscalingConfig(followers={"Embedder": FollowerConfig(min=1, max=12, utilisation=0.5)})


def targets(rates: list[float], request_s: float = 0.01) -> list[int]:
    """The targets for requests per second, which change every 200 seconds."""
    state, target, requests, found, second = AutoscalerState(), 1, 0.0, [], 0
    for rate in rates:
        for _ in range(200):
            seen = FollowerSnapshot("Embedder", target, target, int(requests), requests * request_s)
            state, decisions = decide(CONFIG, state, Snapshot(START_S + second, followers=(seen,)))
            target = decisions.followers["Embedder"].target
            second, requests = second + 1, requests + rate
            found.append(target)
    return found


def test_a_follower_has_replicas_for_its_flow() -> None:
    found = targets([200.0, 20.0, 20.0])
    assert found[199] == 4  # 200/s of 10 ms, at half of the time
    assert found[-1] == 1


def test_a_follower_is_not_raised_above_its_maximum() -> None:
    assert max(targets([10_000.0])) == 12


def test_a_follower_without_requests_keeps_its_minimum() -> None:
    assert set(targets([0.0])) == {1}


@pytest.mark.parametrize("busy_s", [float("nan"), -1.0, float("inf")])
def test_a_follower_with_bad_counters_is_held(busy_s: float) -> None:
    seen = FollowerSnapshot("Embedder", 3, 3, 10, busy_s)
    decision = decide(CONFIG, AutoscalerState(), Snapshot(START_S, followers=(seen,)))[1].followers["Embedder"]
    assert (decision.target, decision.reason) == (3, Reason.NO_FRESH_DATA)


def test_a_follower_whose_replicas_do_not_report_is_held() -> None:
    state = AutoscalerState()
    for second in range(200):
        requests = 200 * min(second, 100)
        fresh = 4 if second < 100 else 1
        seen = FollowerSnapshot("Embedder", 4, 4, requests, requests * 0.01, fresh)
        state, decisions = decide(CONFIG, state, Snapshot(START_S + second, followers=(seen,)))
    decision = decisions.followers["Embedder"]
    assert (decision.target, decision.reason) == (4, Reason.NO_FRESH_DATA)
    assert "1 of 4 ready replicas have reported lately" in explain(decision)


def test_a_stale_replica_of_a_follower_counts_as_the_mean_of_the_others() -> None:
    state = AutoscalerState()
    for second in range(100):
        requests = 150 * second  # of three of the four replicas; the fourth one's are not known
        seen = FollowerSnapshot("Embedder", 4, 4, requests, requests * 0.01, 3)
        state, decisions = decide(CONFIG, state, Snapshot(START_S + second, followers=(seen,)))
    assert decisions.followers["Embedder"].numbers["requests_per_s"] == pytest.approx(200, rel=0.05)


def test_a_follower_is_explained_in_words_with_its_numbers() -> None:
    state = AutoscalerState()
    for second in range(100):
        seen = FollowerSnapshot("Embedder", 4, 3, 200 * second, 2.0 * second)
        state, decisions = decide(CONFIG, state, Snapshot(START_S + second, followers=(seen,)))
    text = explain(decisions.followers["Embedder"])
    assert "Embedder: 4 replicas, unchanged." in text
    assert "3 ready, 1 starting" in text
    assert "200.00 requests/s, each takes 10.0 ms of a replica, which may be busy for 50% of its time" in text
    assert "The requests that flow through it need 4.00 replicas." in text


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 12), st.floats(0, 1)), min_size=1, max_size=40),
    st.integers(1, 12),
)
def test_whatever_a_follower_reports_its_target_stays_within_bounds_and_twice_its_replicas(
    ticks: list[tuple[float, int, float]], start: int
) -> None:
    state, target, requests = AutoscalerState(), start, 0.0
    for second, (rate, ready, share) in enumerate(ticks):
        requests += rate
        seen = FollowerSnapshot("Embedder", target, ready, int(requests), requests * 0.01, round(share * ready))
        state, decisions = decide(CONFIG, state, Snapshot(START_S + 5.0 * second, followers=(seen,)))
        decided = decisions.followers["Embedder"].target
        assert 1 <= decided <= max(target, 2 * ready, 2)
        assert decided <= 12
        again = decide(CONFIG, state, Snapshot(START_S + 5.0 * second + 0.5, followers=(seen,)))[1]
        assert again.followers["Embedder"].target == decided
        target = decided
