"""What is counted between two publications reaches the instruments below, once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cluster.telemetry.summed_instruments import SummedInstruments
from cluster.telemetry.usage_metrics import RayUsageMetrics
from router.ports.usage_metrics import UsageSample


class Series:
    """A counter or a gauge that keeps its calls."""

    def __init__(self, refused: str = "") -> None:
        self.calls: list[tuple[float, dict[str, str]]] = []
        self._refused = refused

    def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
        if self._refused in (tags or {}).values():
            raise ValueError("refused")
        self.calls.append((value, tags or {}))

    set = inc


class Below:
    """Instruments of which a test sees every call. Implements ``Instruments``."""

    def __init__(self, refused: str = "no such value") -> None:
        self._refused = refused
        self.made: dict[str, Series] = {}

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Series:
        return self.made.setdefault(name, Series(self._refused))

    gauge = counter


def test_a_counter_passes_on_one_sum_of_each_series() -> None:
    below = Below()
    summed = SummedInstruments(below)
    tokens = summed.counter("tokens", "Tokens.", ("tenant",))
    for amount in (1, 2, 3.5):
        tokens.inc(amount, {"tenant": "a"})
    tokens.inc(7, {"tenant": "b"})
    assert below.made["tokens"].calls == []

    summed.publish()
    assert sorted(below.made["tokens"].calls, key=str) == [(6.5, {"tenant": "a"}), (7, {"tenant": "b"})]

    summed.publish()
    assert len(below.made["tokens"].calls) == 2
    tokens.inc(1, {"tenant": "a"})
    summed.publish()
    assert below.made["tokens"].calls[2:] == [(1, {"tenant": "a"})]


def test_a_gauge_passes_on_its_last_value() -> None:
    below = Below()
    summed = SummedInstruments(below)
    waiting = summed.gauge("waiting", "Requests.")
    for value in (3.0, 0.0):
        waiting.set(value)
    summed.publish()
    assert below.made["waiting"].calls == [(0.0, {})]


def test_a_series_that_is_refused_costs_no_other_one() -> None:
    below = Below(refused="bad")
    summed = SummedInstruments(below)
    tokens = summed.counter("tokens", "Tokens.", ("tenant",))
    for tenant in ("good", "bad"):
        tokens.inc(1, {"tenant": tenant})
    with pytest.raises(ValueError, match="refused"):
        summed.publish()
    summed.publish()
    assert below.made["tokens"].calls == [(1, {"tenant": "good"})]


def test_the_counters_of_usage_are_the_same_with_sums_between() -> None:
    sample = UsageSample("acme", "fast", "finished", 30, 10, 7, 0.5)
    at_once, later = Below(), Below()
    RayUsageMetrics(at_once).count(sample)
    summed = SummedInstruments(later)
    RayUsageMetrics(summed).count(sample)
    summed.publish()
    for name, series in at_once.made.items():
        assert sorted(map(str, series.calls)) == sorted(map(str, later.made[name].calls))
