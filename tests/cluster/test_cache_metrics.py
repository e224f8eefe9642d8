"""What the answer cache's counters are called, and their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from cluster.telemetry import instruments
from cluster.telemetry.cache_metrics import MAX_REASONS, RayCacheMetrics

COUNTS: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()


class Recorded:
    """Takes the place of Ray's counter."""

    def __init__(self, name: str, description: str, tag_keys: Sequence[str] = ()) -> None:
        self._name, self._keys = name, set(tag_keys)

    def set_default_tags(self, tags: Mapping[str, str]) -> None:
        assert tags == {"application": ""}

    def inc(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        labels = dict(tags or {})
        assert {*labels, "application"} == self._keys
        COUNTS[self._name, frozenset(labels.items())] += int(value)


def test_each_event_is_counted_with_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruments, "RayCounter", Recorded)
    COUNTS.clear()
    metrics = RayCacheMetrics()
    metrics.asked("acme", "exact", "")
    metrics.asked("acme", "miss", "new")
    metrics.stored("acme")
    metrics.unstored("acme", "length")
    metrics.poisoned()
    metrics.judged("acme", "shadow", wrong=True)
    assert {(name, tuple(sorted(labels))): count for (name, labels), count in COUNTS.items()} == {
        ("manta_cache_requests", (("reason", ""), ("status", "exact"), ("tenant", "acme"))): 1,
        ("manta_cache_requests", (("reason", "new"), ("status", "miss"), ("tenant", "acme"))): 1,
        ("manta_cache_stored", (("tenant", "acme"),)): 1,
        ("manta_cache_unstored", (("reason", "length"), ("tenant", "acme"))): 1,
        ("manta_cache_poisoned", ()): 1,
        ("manta_cache_judged", (("judge", "shadow"), ("tenant", "acme"), ("wrong", "true"))): 1,
    }


def test_reasons_of_another_process_cannot_add_series_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruments, "RayCounter", Recorded)
    COUNTS.clear()
    metrics = RayCacheMetrics()
    for number in range(1000):
        metrics.asked("acme", "miss", f"reason {number}")
        metrics.unstored("acme", f"reason {number}")
    reasons = {dict(labels)["reason"] for _, labels in COUNTS}
    assert len(reasons) == MAX_REASONS + 1
    assert "other" in reasons
