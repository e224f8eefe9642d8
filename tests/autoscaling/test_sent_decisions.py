"""What the autoscaler decides is sent by OTLP, too, where the config names a receiver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from cluster.autoscaling import decision_publisher
from cluster.autoscaling.decision import Decisions, Reason, TierDecision, WhyNot
from cluster.autoscaling.decision_publisher import DecisionPublisher
from cluster.telemetry.config import TelemetryConfig
from tests.autoscaling.publishers import publisher
from tests.cluster.otlp_receiver import Received, http_receiver
from tests.cluster.ray_metrics import RecordedMetrics, record


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedMetrics:
    return record(monkeypatch)


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


def senders() -> set[threading.Thread]:
    """The threads that send metrics: the SDK's, and those that send the last ones."""
    names = ("OtelPeriodicExportingMetricReader", "manta-last-metrics")
    return {each for each in threading.enumerate() if each.name in names}


def test_decisions_arrive_as_metrics_of_the_autoscaler(recorded: RecordedMetrics) -> None:
    with http_receiver() as received:
        made = publisher("sent")
        DecisionPublisher.send_metrics_by("sent", telemetry(received))
        eventually(lambda: made.receiver is not None)
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
        eventually(lambda: made.receiver is not None)
        made.publish(decisions(4))
        DecisionPublisher.send_metrics_by("moved", telemetry(later))
        eventually(lambda: made.receiver == later.metrics_endpoint)
        made.publish(decisions(5))
        eventually(lambda: "manta_autoscaling_target_replicas" in later.metrics)
        eventually(lambda: "manta_autoscaling_target_replicas" in former.metrics)
        DecisionPublisher.send_metrics_by("moved", TelemetryConfig())
    assert former.number("manta_autoscaling_target_replicas", tier="fast").as_double == 4
    assert later.number("manta_autoscaling_target_replicas", tier="fast").as_double == 5


def test_of_an_application_that_is_gone_nothing_is_sent_any_more(recorded: RecordedMetrics) -> None:
    with http_receiver() as received:
        others = senders()
        made = publisher("gone", silent_s=1.5)
        DecisionPublisher.send_metrics_by("gone", telemetry(received))
        eventually(lambda: made.receiver is not None)
        made.publish(decisions(4))
        eventually(lambda: "manta_autoscaling_target_replicas" in received.metrics)
        eventually(lambda: made.receiver is None and not senders() - others)
        exports = len(received.resources)
        made.publish(decisions(4))  # it is back
        eventually(lambda: made.receiver is not None)
        made.publish(decisions(3))
        eventually(lambda: len(received.resources) > exports)
        assert received.number("manta_autoscaling_target_replicas", tier="fast").as_double == 3
        DecisionPublisher.send_metrics_by("gone", TelemetryConfig())


def test_a_sum_for_prometheus_never_falls_when_sending_begins_and_ends(recorded: RecordedMetrics) -> None:
    def sum_of_decisions() -> float:
        return recorded.value("ray_manta_autoscaling_decisions_total", tier="fast", reason="backlog")

    with http_receiver() as received:
        made = publisher("summed")
        for number, settings in enumerate((TelemetryConfig(), telemetry(received), TelemetryConfig())):
            DecisionPublisher.send_metrics_by("summed", settings)
            eventually(lambda: made.receiver == settings.metrics.endpoint)  # noqa: B023 - called at once
            made.publish(decisions(4))
            assert sum_of_decisions() == number + 1


def test_metrics_that_cannot_be_sent_stop_no_decision(
    recorded: RecordedMetrics, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise ImportError("no SDK")

    monkeypatch.setattr(decision_publisher, "make_otlp_instruments", fail)
    with http_receiver() as received, caplog.at_level("WARNING", "ray.serve"):
        made = publisher("failing")
        DecisionPublisher.send_metrics_by("failing", telemetry(received))
        eventually(lambda: "no SDK" in caplog.text)
        made.publish(decisions(4))
        assert made.receiver is None
    assert recorded.value("ray_manta_autoscaling_target_replicas", tier="fast") == 4


def test_without_a_receiver_nothing_of_it_is_in_the_policys_settings() -> None:
    assert TelemetryConfig(headers={"authorization": "Bearer s3cret"}).sending() is None
