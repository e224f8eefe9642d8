"""``SummedInstruments``: counters, gauges and histograms that are kept in this process and published once a second.

A request changes some twenty series. Ray checks the labels of each change and takes a lock for it; here a change is one
look-up in a dict. Prometheus reads the sums every few seconds, so that nothing is lost by a second's delay.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from cluster.telemetry.instruments import Counter, Gauge, Instruments

Key = tuple[tuple[str, str], ...]
"""The labels of a series, as pairs."""
INFINITY = "+Inf"


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

    def histogram(
        self, name: str, description: str, bounds: Sequence[float], labels: Sequence[str] = ()
    ) -> SummedHistogram:
        """Makes a histogram: the three counters that ``engine_metric_definitions`` describes. ``bounds`` are the upper
        bounds of its buckets, ascending."""
        made = SummedHistogram(
            self._below.counter(f"{name}_bucket", f"{description} Values up to le.", (*labels, "le")),
            self._below.counter(f"{name}_sum", f"{description} Their sum.", labels),
            self._below.counter(f"{name}_count", f"{description} Their number.", labels),
            bounds,
        )
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


class SummedHistogram:
    """A histogram whose values are counted by bucket, and published as three counters."""

    def __init__(self, buckets: Counter, total: Counter, count: Counter, bounds: Sequence[float]) -> None:
        self._buckets = buckets
        self._total = total
        self._count = count
        self._bounds = bounds
        self._names = (*(str(float(bound)) for bound in bounds), INFINITY)
        self._series: list[tuple[dict[str, str], SummedSeries]] = []

    def series(self, labels: Mapping[str, str]) -> SummedSeries:
        """Makes the series with ``labels``, once. Nothing of it is published before its first value."""
        made = SummedSeries(self._bounds)
        self._series.append((dict(labels), made))
        return made

    def publish(self) -> None:
        """Adds what was counted to the counters below."""
        for labels, series in self._series:
            counts, total = series.take()
            number = sum(counts)
            if not number:
                continue
            for bound, up_to in zip(self._names, accumulate(counts), strict=True):
                if up_to:  # Ray refuses to add 0
                    self._buckets.inc(up_to, {**labels, "le": bound})
            self._count.inc(number, labels)
            if total > 0:
                self._total.inc(total, labels)


class SummedSeries:
    """The values of one series of a histogram since the last publication, counted by bucket. The last count is that of
    values above all bounds."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Counts ``value``, which is not negative. A bound belongs to the bucket that it ends."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def take(self) -> tuple[list[int], float]:
        """Returns the counts and the sum of the values, and begins anew."""
        taken = self._counts, self._total
        self._counts, self._total = [0] * len(self._counts), 0.0
        return taken
