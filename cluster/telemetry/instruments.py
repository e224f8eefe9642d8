"""``Instruments``: makes the counters and gauges of a process. They are Ray's, and OTLP's where that is asked.

A counter is defined once, where it is counted; Ray and the SDK of OpenTelemetry keep the sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from ray.util.metrics import Counter as RayCounter
from ray.util.metrics import Gauge as RayGauge

Labels = Mapping[str, str]

APPLICATION = "application"


class Counter(Protocol):
    """A number that grows."""

    def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Adds ``value``, which is above 0, to the series with the labels ``tags``; None: without labels."""
        ...


class Gauge(Protocol):
    """A number that is set."""

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        """Sets the series with the labels ``tags``; None: without labels."""
        ...


class Instruments(Protocol):
    """Makes counters and gauges, by their name without prefix, description and the names of their labels."""

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter: ...
    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Gauge: ...


class RayInstruments:
    """Makes the counters and gauges of Ray, which Prometheus reads from every node. Implements ``Instruments``.

    ``application`` is the value of the label ``application``, which each series gets: two applications of a cluster may
    have tiers of the same name.
    """

    def __init__(self, application: str = "") -> None:
        self._tags = {APPLICATION: application}

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter:
        made = RayCounter(name, description, (APPLICATION, *labels))
        made.set_default_tags(self._tags)
        return cast("Counter", made)  # its tags may be None, which it hides

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Gauge:
        made = RayGauge(name, description, (APPLICATION, *labels))
        made.set_default_tags(self._tags)
        return cast("Gauge", made)
