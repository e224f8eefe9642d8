from __future__ import annotations

import pytest

from cluster.autoscaling.config import AutoscalingConfig, FollowerConfig
from cluster.autoscaling.decision import Reason
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
