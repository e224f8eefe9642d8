"""What the answer cache's counters are called, and their labels."""

from __future__ import annotations

import pytest

from cluster.telemetry.cache_metrics import MAX_REASONS, RayCacheMetrics
from tests.cluster.ray_metrics import RecordedMetrics, record


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedMetrics:
    return record(monkeypatch)


def values_of(recorded: RecordedMetrics, label: str) -> dict[str, set[str]]:
    """The values of a label, by metric."""
    found: dict[str, set[str]] = {}
    for name, labels in recorded.values:
        if label in dict(labels):
            found.setdefault(name, set()).add(dict(labels)[label])
    return found


def test_each_event_is_counted_with_its_labels(recorded: RecordedMetrics) -> None:
    metrics = RayCacheMetrics()
    metrics.asked("acme", "exact", "")
    for _ in range(2):
        metrics.asked("acme", "miss", "new")
    metrics.stored("acme")
    metrics.unstored("acme", "length")
    metrics.poisoned()
    metrics.judged("acme", "shadow", wrong=True)
    assert {(name, tuple(sorted(labels))): value for (name, labels), value in recorded.values.items()} == {
        ("ray_manta_cache_requests_total", (("status", "exact"), ("tenant", "acme"))): 1,
        ("ray_manta_cache_requests_total", (("status", "miss"), ("tenant", "acme"))): 2,
        ("ray_manta_cache_reasons_total", (("reason", ""), ("status", "exact"))): 1,
        ("ray_manta_cache_reasons_total", (("reason", "new"), ("status", "miss"))): 2,
        ("ray_manta_cache_stored_total", (("tenant", "acme"),)): 1,
        ("ray_manta_cache_unstored_total", (("reason", "length"),)): 1,
        ("ray_manta_cache_poisoned_total", ()): 1,
        ("ray_manta_cache_judged_total", (("judge", "shadow"), ("tenant", "acme"), ("wrong", "true"))): 1,
    }


def test_reasons_of_another_process_cannot_add_series_for_ever(recorded: RecordedMetrics) -> None:
    metrics = RayCacheMetrics()
    for number in range(1000):
        metrics.asked("acme", "miss", f"reason {number}")
        metrics.unstored("acme", f"reason {number}")
    reasons = values_of(recorded, "reason")
    assert reasons.keys() == {"ray_manta_cache_reasons_total", "ray_manta_cache_unstored_total"}
    for each in reasons.values():
        assert len(each) == MAX_REASONS + 1
        assert "other" in each


def test_a_status_or_a_judge_that_is_not_known_is_other(recorded: RecordedMetrics) -> None:
    metrics = RayCacheMetrics()
    metrics.asked("acme", "of the next release", "new")
    metrics.judged("acme", "of the next release", wrong=False)
    assert set.union(*values_of(recorded, "status").values()) == {"other"}
    assert set.union(*values_of(recorded, "judge").values()) == {"other"}
