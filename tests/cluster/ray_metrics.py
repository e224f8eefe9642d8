"""Ray's metrics without Ray: what was added and set, by the names of Prometheus, and whether Ray would take it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from cluster.telemetry import instruments

Labels = frozenset[tuple[str, str]]


@dataclass
class RecordedMetrics:
    """All metrics that were made, and their values by name and labels."""

    labels: dict[str, frozenset[str]] = field(default_factory=dict)
    values: dict[tuple[str, Labels], float] = field(default_factory=dict)
    applications: dict[str, str] = field(default_factory=dict)  # by metric
    adds: dict[str, int] = field(default_factory=dict)  # calls of Ray's own counters
    calls: int = 0

    def value(self, name: str, **labels: str) -> float:
        """The value of a series; 0 if there is none."""
        return self.values.get((name, frozenset(labels.items())), 0)

    def made(self, name: str, labels: tuple[str, ...]) -> None:
        self.labels[name] = frozenset(labels)

    def _key(self, name: str, labels: dict[str, str] | None) -> tuple[str, Labels]:
        given = labels or {}
        assert {*given, "application"} == self.labels[name], f"Ray wants every label of {name}"
        assert all(isinstance(each, str) for each in given.values())
        self.calls += 1
        return name, frozenset(given.items())

    def add(self, name: str, value: float, labels: dict[str, str] | None) -> None:
        assert value > 0, "Ray raises"
        self.adds[name] = self.adds.get(name, 0) + 1
        key = self._key(name, labels)
        self.values[key] = self.values.get(key, 0) + value

    def set(self, name: str, value: float, labels: dict[str, str] | None) -> None:
        self.values[self._key(name, labels)] = value


def record(monkeypatch: pytest.MonkeyPatch) -> RecordedMetrics:
    """Has the metrics that are made from now on recorded, by their labels without the application."""
    recorded = RecordedMetrics()

    class Metric:
        name = ""

        def set_default_tags(self, tags: dict[str, str]) -> None:
            recorded.applications[self.name] = tags["application"]

    class Counter(Metric):
        def __init__(self, name: str, description: str, labels: tuple[str, ...] = ()) -> None:
            assert description
            self.name = f"ray_{name}_total"
            recorded.made(self.name, labels)

        def inc(self, value: float, labels: dict[str, str] | None = None) -> None:
            recorded.add(self.name, value, labels)

    class Gauge(Metric):
        def __init__(self, name: str, description: str, labels: tuple[str, ...] = ()) -> None:
            assert description
            self.name = f"ray_{name}"
            recorded.made(self.name, labels)

        def set(self, value: float, labels: dict[str, str] | None = None) -> None:
            recorded.set(self.name, value, labels)

    monkeypatch.setattr(instruments, "RayCounter", Counter)
    monkeypatch.setattr(instruments, "RayGauge", Gauge)
    return recorded
