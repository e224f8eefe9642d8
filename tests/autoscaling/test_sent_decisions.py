"""What the autoscaler decides is sent by OTLP, too, where the config names a receiver."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from cluster.autoscaling.decision import Decisions, Reason, TierDecision, WhyNot
from cluster.autoscaling.decision_publisher import DecisionPublisher
from cluster.autoscaling.decision_store import DecisionStore
from cluster.autoscaling.waiting_room_store import WaitingRoomStore
from cluster.telemetry.config import TelemetryConfig
from tests.cluster.otlp_receiver import Received, http_receiver
from tests.cluster.ray_metrics import RecordedMetrics, record


class Stored:
    """Takes decisions, and knows no pin and no request that waits."""

    def pins(self) -> tuple[()]:
        return ()

    def write(self, decisions: Decisions) -> None:
        pass

    def read(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedMetrics:
    return record(monkeypatch)


def publisher(application: str, silent_s: float = 60.0) -> DecisionPublisher:
    return DecisionPublisher(application, cast("DecisionStore", Stored()), cast("WaitingRoomStore", Stored()), silent_s)


def telemetry(received: Received) -> TelemetryConfig:
    given = {
        "headers": {"authorization": "Bearer s3cret"},
        "service_name": "llm",
        "metrics": {"endpoint": received.metrics_endpoint, "interval_s": 1},
    }
    sending = TelemetryConfig.model_validate(given).sending()  # as it goes to Serve's controller
    return TelemetryConfig.model_validate(sending)


def decisions(target: int) -> Decisions:
    why = WhyNot(Reason.STEADY)
    numbers = {"ready": 2.0, "need": 2.5, "cold_start_s": 12.0, "waiting_room": 1.0}
    return Decisions(1.0, {"fast": TierDecision("fast", target, target, Reason.BACKLOG, why, why, (), numbers)})


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_decisions_arrive_as_metrics_of_the_autoscaler(recorded: RecordedMetrics) -> None:
    with http_receiver() as received:
        made = publisher("sent")
        DecisionPublisher.send_metrics_by("sent", telemetry(received))
        for _ in range(3):
            made.publish(decisions(4))
        name = "manta_autoscaling_decisions"
        eventually(
            lambda: name in received.metrics and received.number(name, tier="fast", reason="backlog").as_double == 3
        )
        expected = {"target": 4.0, "ready": 2.0, "needed": 2.5}
        for what, value in expected.items():
            assert received.number(f"manta_autoscaling_{what}_replicas", tier="fast").as_double == value
        assert received.number("manta_autoscaling_cold_start_s", tier="fast").as_double == 12
        assert received.number("manta_autoscaling_waiting_requests", tier="fast").as_double == 1
        DecisionPublisher.send_metrics_by("sent", TelemetryConfig())
    resource = received.resources[0]
    assert (resource["manta.role"], resource["manta.application"], resource["service.name"]) == (
        "autoscaler",
        "sent",
        "llm",
    )
    assert received.headers[0]["authorization"] == "Bearer s3cret"
    assert recorded.value("ray_manta_autoscaling_target_replicas", tier="fast") == 4, "for Prometheus, as before"


def test_another_receiver_gets_what_is_decided_from_then_on(recorded: RecordedMetrics) -> None:
    with http_receiver() as former, http_receiver() as later:
        made = publisher("moved")
        DecisionPublisher.send_metrics_by("moved", telemetry(former))
        made.publish(decisions(4))
        DecisionPublisher.send_metrics_by("moved", telemetry(later))
        made.publish(decisions(5))
        eventually(lambda: "manta_autoscaling_target_replicas" in later.metrics)
        DecisionPublisher.send_metrics_by("moved", TelemetryConfig())
        eventually(lambda: "manta_autoscaling_target_replicas" in former.metrics)
    assert former.number("manta_autoscaling_target_replicas", tier="fast").as_double == 4
    assert later.number("manta_autoscaling_target_replicas", tier="fast").as_double == 5


def test_of_an_application_that_is_gone_nothing_is_sent_any_more(recorded: RecordedMetrics) -> None:
    with http_receiver() as received:
        made = publisher("gone", silent_s=1.5)
        DecisionPublisher.send_metrics_by("gone", telemetry(received))
        made.publish(decisions(4))
        eventually(lambda: len(received.resources) > 0)
        time.sleep(3.5)
        exports = len(received.resources)
        time.sleep(2.5)
        assert len(received.resources) == exports
        made.publish(decisions(3))  # it is back
        eventually(lambda: len(received.resources) > exports)
        assert received.number("manta_autoscaling_target_replicas", tier="fast").as_double == 3
        DecisionPublisher.send_metrics_by("gone", TelemetryConfig())


def test_without_a_receiver_nothing_of_it_is_in_the_policys_settings() -> None:
    assert TelemetryConfig(headers={"authorization": "Bearer s3cret"}).sending() is None
