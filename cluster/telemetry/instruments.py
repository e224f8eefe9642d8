"""``Instruments``: makes the counters and gauges of a process. They are Ray's, and OTLP's where that is asked.

A counter is defined once, where it is counted; Ray and the SDK of OpenTelemetry keep the sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from ray.util.metrics import Counter as RayCounter
from ray.util.metrics import Gauge as RayGauge

from cluster.telemetry.config import TelemetryConfig

if TYPE_CHECKING:
    from cluster.telemetry.otlp_instruments import OtlpInstruments

Labels = Mapping[str, str]


class Counter(Protocol):
    """A number that grows."""

    def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Adds ``value``, which is above 0, to the series with the labels ``tags``."""
        ...


class Gauge(Protocol):
    """A number that is set."""

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Sets the series with the labels ``tags``."""
        ...


class Instruments(Protocol):
    """Makes counters and gauges, by their name without prefix, description and the names of their labels."""

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter: ...
    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Gauge: ...


class RayInstruments:
    """Ray's, which Prometheus reads from every node. Implements ``Instruments``."""

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter:
        return cast("Counter", RayCounter(name, description, tuple(labels)))  # its tags may be None, which it hides

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Gauge:
        return cast("Gauge", RayGauge(name, description, tuple(labels)))


def otlp_instruments(config: TelemetryConfig, role: str, instance: str) -> OtlpInstruments | None:
    """Returns instruments that are Ray's and are sent by OTLP too; None: ``telemetry.metrics`` names no receiver, and
    nothing of OpenTelemetry is loaded. ``role`` is ``router`` or ``replica``, ``instance`` names this process."""
    if config.metrics.endpoint is None:
        return None
    from cluster.telemetry.otlp_instruments import OtlpInstruments

    return OtlpInstruments(config, role, instance, RayInstruments())
