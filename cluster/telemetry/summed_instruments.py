"""``SummedInstruments``: counters and gauges that are kept in this process and published once a second.

A request changes some twenty series. Ray checks the labels of each change and takes a lock for it; here a change is one
look-up in a dict. Prometheus reads the sums every few seconds, so that nothing is lost by a second's delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cluster.telemetry.instruments import Counter, Gauge, Instruments

Key = tuple[tuple[str, str], ...]
"""The labels of a series, as pairs."""


class _Kept(Protocol):
    def publish(self) -> None: ...


class SummedInstruments:
    """Instruments of ``below`` that get the changes of all series when ``publish`` is called. Implements
    ``Instruments``."""

    def __init__(self, below: Instruments) -> None:
        self._below = below
        self._made: list[_Kept] = []

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter:
        made = SummedCounter(self._below.counter(name, description, labels))
        self._made.append(made)
        return made

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Gauge:
        made = KeptGauge(self._below.gauge(name, description, labels))
        self._made.append(made)
        return made

    def publish(self) -> None:
        """Passes on what has changed since the last call. Raises what ``below`` raises; a series that it refuses is
        dropped then, so that it refuses no others."""
        for made in self._made:
            made.publish()


class SummedCounter:
    """A counter that adds up between publications. Implements ``Counter``."""

    def __init__(self, below: Counter) -> None:
        self._below = below
        self._sums: dict[Key, float] = {}

    def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
        key = tuple(tags.items()) if tags else ()
        self._sums[key] = self._sums.get(key, 0) + value

    def publish(self) -> None:
        """Adds the sums to the counter below."""
        while self._sums:
            key, value = self._sums.popitem()
            self._below.inc(value, dict(key))


class KeptGauge:
    """A gauge that keeps the last value between publications. Implements ``Gauge``."""

    def __init__(self, below: Gauge) -> None:
        self._below = below
        self._values: dict[Key, float] = {}

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self._values[tuple(tags.items()) if tags else ()] = value

    def publish(self) -> None:
        """Sets the gauge below to the last values."""
        while self._values:
            key, value = self._values.popitem()
            self._below.set(value, dict(key))
