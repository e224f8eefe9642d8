"""What the controller's log has of the autoscaler's decisions."""

from __future__ import annotations

import logging
import time

import pytest

from cluster.autoscaling.decision import Decisions, Reason, TierDecision, WhyNot
from cluster.autoscaling.decision_log import AGAIN_S, DecisionLog
from cluster.autoscaling.decision_metrics import DecisionMetrics
from cluster.telemetry.instruments import RayInstruments
from tests.autoscaling.publishers import publisher
from tests.cluster.ray_metrics import record

STEADY = WhyNot(Reason.STEADY, {"need": 2.0})


def decided(
    at_s: float,
    target: int = 2,
    previous: int = 2,
    reason: Reason = Reason.STEADY,
    more: WhyNot = STEADY,
    need: float = 2.0,
) -> Decisions:
    numbers = {"need": need}
    return Decisions(at_s, {"fast": TierDecision("fast", target, previous, reason, more, STEADY, (), numbers)})


def logged_at(log: DecisionLog, seconds: range, decision: Decisions) -> list[int]:
    return [at_s for at_s in seconds if log.lines(Decisions(float(at_s), decision.tiers))]


def test_a_change_is_logged_and_no_change_is_not() -> None:
    log = DecisionLog()
    assert len(log.lines(decided(0.0, target=3, previous=2, reason=Reason.FLOW))) == 1
    assert not log.lines(decided(1.0, target=3, previous=3))


@pytest.mark.parametrize(
    "limited",
    [
        pytest.param(decided(0.0, more=WhyNot(Reason.MAXIMUM, {"most": 2, "need": 5.0}), need=5.0), id="maximum"),
        pytest.param(decided(0.0, more=WhyNot(Reason.GPU_BUDGET), need=5.0), id="GPU budget"),
        pytest.param(decided(0.0, more=WhyNot(Reason.PINNED), need=5.0), id="pin"),
        pytest.param(decided(0.0, more=WhyNot(Reason.UNCONFIRMED)), id="one signal alone"),
        pytest.param(decided(0.0, reason=Reason.NO_FRESH_DATA), id="no data"),
        pytest.param(decided(0.0, reason=Reason.BAD_INPUT), id="bad data"),
    ],
)
def test_a_limit_that_holds_is_logged_at_once_and_then_now_and_again(limited: Decisions) -> None:
    assert logged_at(DecisionLog(), range(1000), limited) == [0, AGAIN_S, 2 * AGAIN_S, 3 * AGAIN_S]


def test_a_maximum_that_the_load_does_not_need_is_no_limit() -> None:
    at_most = decided(0.0, more=WhyNot(Reason.MAXIMUM, {"most": 2, "need": 1.5}), need=1.5)
    assert not logged_at(DecisionLog(), range(1000), at_most)


def test_a_limit_that_comes_and_goes_each_second_is_not_logged_each_time() -> None:
    log, limited = DecisionLog(), decided(0.0, more=WhyNot(Reason.GPU_BUDGET), need=5.0)
    found = [
        log.lines(Decisions(float(at_s), limited.tiers) if at_s % 2 else decided(float(at_s))) for at_s in range(200)
    ]
    assert sum(map(len, found)) == 1


def test_the_publisher_logs_why_a_tier_gets_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record(monkeypatch)
    limited = decided(time.monotonic(), more=WhyNot(Reason.MAXIMUM, {"most": 2, "need": 5.0}), need=5.0)
    with caplog.at_level(logging.INFO, "ray.serve"):
        publisher("limits").publish(limited)
    assert "The configured maximum is 2 replicas; the load needs 5.00." in caplog.text


def test_why_there_are_no_more_or_fewer_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = record(monkeypatch)
    metrics = DecisionMetrics(RayInstruments("app"))
    for _ in range(3):
        metrics.count(decided(0.0, more=WhyNot(Reason.GPU_BUDGET)).tiers["fast"])
    name = "ray_manta_autoscaling_why_not_total"
    assert recorded.value(name, tier="fast", direction="more", reason="gpu_budget") == 3
    assert recorded.value(name, tier="fast", direction="fewer", reason="steady") == 3
