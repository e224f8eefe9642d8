"""The policy as Ray Serve calls it, with Serve's own contexts."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.config import AutoscalingContext

from cluster.autoscaling.application_scaler import ApplicationScaler, ApplicationScalers
from cluster.autoscaling.config import AutoscalingConfig, TierScalingConfig
from cluster.autoscaling.decision import Decisions
from cluster.autoscaling.serve_policy import TierAutoscaler, view_of
from cluster.autoscaling.snapshot_collector import ReplicaView, TierView

SETTINGS = AutoscalingConfig(tiers={"fast": TierScalingConfig(min=2, max=4)})

Series = dict[str, dict[str, list[tuple[float, float]]]]


def replica(name: str) -> ReplicaID:
    return ReplicaID(name, DeploymentID("fast", "manta"))


def context(target: int, running: list[str], series: Series | Callable[[], Any]) -> Any:
    """A context as Serve makes them. ``series`` has the points of each metric of each replica."""

    def raw() -> Any:
        if callable(series):
            return series()
        return {
            name: {replica(each): [TimeStampedValue(*point) for point in points] for each, points in of_all.items()}
            for name, of_all in series.items()
        }

    return AutoscalingContext(
        deployment_id=DeploymentID("fast", "manta"),
        deployment_name="fast",
        app_name=f"manta-{uuid.uuid4()}",
        current_num_replicas=len(running),
        target_num_replicas=target,
        running_replicas=[replica(each) for each in running],
        total_num_requests=0.0,
        total_queued_requests=0.0,
        aggregated_metrics=None,
        raw_metrics=raw,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=4,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=None,
        config=None,
    )


def broken() -> Any:
    raise AttributeError("Serve has changed")


def test_the_last_report_of_each_running_replica_is_read() -> None:
    series: Series = {
        "running": {"a": [(1.0, 5.0), (2.0, 6.0)], "b": [(1.5, 1.0)], "c": []},
        "waiting": {"a": [(1.0, 9.0)], "b": [(1.5, 2.0)]},  # a's last report had none
    }
    found = view_of(context(3, ["a", "b", "c"], series))
    assert found == TierView(
        "fast",
        3,
        (
            ReplicaView("a", 2.0, {"running": 6.0}),
            ReplicaView("b", 1.5, {"running": 1.0, "waiting": 2.0}),
            ReplicaView("c"),
        ),
    )


def test_the_target_is_the_decision_of_the_applications_scaler_with_a_new_state_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ApplicationScaler(SETTINGS, {})
    monkeypatch.setattr(ApplicationScalers, "_scalers", {})
    policy, seen = TierAutoscaler(SETTINGS.model_dump(mode="json"), {}), context(1, ["a"], {})
    ApplicationScalers.of(seen.app_name, lambda: made)
    (first, one), (again, other) = policy(seen), policy(seen)
    assert (first, again) == (2, 2)  # the minimum holds even without a report
    assert one == other == {}
    assert one is not other


class Records(logging.Handler):
    """The records of a logger."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def test_metrics_that_cannot_be_read_leave_the_target_and_are_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    records, log = Records(), logging.getLogger("ray.serve")
    log.addHandler(records)
    monkeypatch.setattr(ApplicationScalers, "_scalers", {})
    policy, seen = TierAutoscaler(SETTINGS.model_dump(mode="json"), {}), context(3, ["a"], broken)
    scaler = ApplicationScaler(SETTINGS.model_copy(update={"interval_s": 1e-9}), {})
    ApplicationScalers.of(seen.app_name, lambda: scaler)
    monkeypatch.setattr(scaler, "configure", lambda config, gpus: None)
    assert [policy(seen)[0] for _ in range(5)] == [3] * 5
    log.removeHandler(records)
    assert records.messages == ["Autoscaling of fast fails; its target stays"]


def test_settings_of_another_release_leave_the_target() -> None:
    policy = TierAutoscaler({"a setting": "unknown here"}, {})
    assert [policy(context(3, ["a"], {})) for _ in range(2)] == [(3, {})] * 2


def test_the_policy_goes_by_a_clock_that_nobody_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ApplicationScalers, "_scalers", {})
    policy, seen = TierAutoscaler(SETTINGS.model_dump(mode="json"), {}), context(1, ["a"], {})
    decisions: list[Decisions] = []
    ApplicationScalers.of(seen.app_name, lambda: ApplicationScaler(SETTINGS, {}, decisions.append))
    policy(seen)
    assert decisions[0].at_s == pytest.approx(time.monotonic(), abs=60)
    assert decisions[0].time_s == pytest.approx(time.time(), abs=60)
