"""What the counters of usage add to Ray's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cluster.telemetry.fault_metrics import FaultMetrics
from cluster.telemetry.instruments import APPLICATION, RayInstruments
from cluster.telemetry.tenant_labels import OTHERS
from cluster.telemetry.usage_metrics import RayUsageMetrics
from router.admission.admission_decision import Reason
from router.ledger.ledger_entry import Outcome
from router.ports.limit_store import LimitName
from router.ports.usage_metrics import REFUSED, AdmissionSample, UsageSample
from router.speculative_answers import Speculation


class Recorded:
    """A counter that keeps what is added."""

    added: list[tuple[str, float, dict[str, str]]] = []  # noqa: RUF012 - of all counters of a test

    def __init__(self, name: str, description: str, labels: tuple[str, ...] = ()) -> None:
        self.name, self.labels = name, labels

    def inc(self, value: float, labels: dict[str, str] | None = None) -> None:
        labels = labels or {}
        assert value > 0, "Ray raises"
        assert {*labels, "application"} == set(self.labels)
        Recorded.added.append((self.name, value, labels))


def record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the counters that are made from now on recorded."""

    def counter(self: RayInstruments, name: str, description: str, labels: Sequence[str] = ()) -> Recorded:
        return Recorded(name, description, (APPLICATION, *labels))

    monkeypatch.setattr(RayInstruments, "counter", counter)
    monkeypatch.setattr(Recorded, "added", [])


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> RayUsageMetrics:
    record(monkeypatch)
    return RayUsageMetrics()


def test_faults_are_counted_by_what_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    record(monkeypatch)
    faults = FaultMetrics()
    faults.lost("audit")()
    faults.unreadable_policy()
    faults.lost_text("disk")

    assert Recorded.added == [
        ("manta_lost_records", 1, {"log": "audit"}),
        ("manta_unreadable_policies", 1, {}),
        ("manta_lost_texts", 1, {"reason": "disk"}),
    ]


def test_tokens_are_counted_by_direction_and_nothing_is_added_as_zero(metrics: RayUsageMetrics) -> None:
    metrics.count(UsageSample("acme", "fast", "cancelled", 30, 0, 7, 0.0))

    labels = {"tenant": "acme", "tier": "fast"}
    assert Recorded.added == [
        ("manta_requests", 1, {**labels, "outcome": "cancelled"}),
        ("manta_tokens", 30, {**labels, "direction": "input"}),
        ("manta_tokens", 7, {**labels, "direction": "output"}),
    ]


@pytest.mark.usefixtures("metrics")
def test_too_many_tenants_share_one_label() -> None:
    metrics = RayUsageMetrics(max_tenants=2)
    for tenant in ("a", "b", "c", "a"):
        metrics.near_limit(tenant, "key", LimitName.TOKENS_PER_DAY)
    metrics.refused("d", "tenant", LimitName.TOKENS_PER_DAY)

    assert [labels["tenant"] for _, _, labels in Recorded.added] == ["a", "b", OTHERS, "a", OTHERS]


def test_decisions_of_the_guard_are_counted_and_those_of_no_guard_are_not(metrics: RayUsageMetrics) -> None:
    for safety in ("blocked", "", "in doubt"):
        metrics.count(UsageSample("acme", "fast", "finished", 0, 0, 0, 0.0, safety))

    decisions = [labels["decision"] for name, _, labels in Recorded.added if name == "manta_safety_decisions"]
    assert decisions == ["blocked", "other"]


def values(label: str) -> list[str]:
    return [labels[label] for _, _, labels in Recorded.added if label in labels]


def test_values_of_labels_are_those_that_the_router_has_and_other(metrics: RayUsageMetrics) -> None:
    kinds = ("resumed", "restarted", "moved", "other_version", "poison")  # as ``OnFailover`` lists them
    for kind in (*kinds, "zanzibar"):
        metrics.failover("fast", kind)
    assert values("kind") == [*kinds, "other"]
    for found in (*Speculation, "zanzibar"):
        metrics.speculation("fast", str(found))
    assert values("outcome") == ["kept", "refused", "changed", "late", "left", "other"]
    Recorded.added.clear()
    for scope in ("key", "tenant", "zanzibar"):
        metrics.refused("acme", scope, LimitName.TOKENS_PER_DAY)
        metrics.near_limit("acme", scope, LimitName.TOKENS_PER_DAY)
    assert values("scope") == ["key", "key", "tenant", "tenant", "other", "other"]
    for outcome in (*Outcome, REFUSED, "zanzibar"):
        metrics.count(UsageSample("acme", "fast", str(outcome), 0, 0, 0, 0.0))
    assert values("outcome") == ["finished", "failed", "cancelled", "refused", "other"]


def test_decisions_of_the_admission_have_known_labels(metrics: RayUsageMetrics) -> None:
    for reason in (*Reason, "", "zanzibar"):
        outcome = "refused" if reason else "admitted"
        metrics.admission(AdmissionSample("fast", "standard", outcome, str(reason), None, 0.0, 0, 0))
    metrics.admission(AdmissionSample("fast", "zanzibar", "spilled", Reason.TTFT, None, 0.0, 0, 0))
    assert values("reason") == [*Reason, "none", "other", "ttft"]
    assert values("class")[-2:] == ["standard", "other"]
