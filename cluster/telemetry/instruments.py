"""``Instruments``: makes the counters and gauges of a process. They are Ray's, and OTLP's where that is asked.

A counter is defined once, where it is counted. Ray gets it as a gauge of its sum: its agent exports the counters of a
process for as long as the node runs, also when the process has long ended, and a gauge until 20 s after it was last
set. So a replica that is replaced leaves no series behind. Prometheus calculates with both alike.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from ray.util.metrics import Counter as RayCounter
from ray.util.metrics import Gauge as RayGauge

Labels = Mapping[str, str]

APPLICATION = "application"
TOTAL = "_total"
"""The suffix of counters in Prometheus."""
REFRESH_S = 5.0
"""Seconds after which sums are set again, since Ray forgets a gauge that was not set for a report, every 10 s
(``RAY_metrics_report_interval_ms``)."""


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


class SentInstruments(Instruments, Protocol):
    """Makes counters and gauges whose values are also sent to a receiver."""

    def close(self, wait_s: float = ...) -> None:
        """Sends the last values, and waits for it for at most ``wait_s`` seconds."""
        ...


class RayInstruments:
    """Makes the counters and gauges of Ray, which Prometheus reads from every node. Implements ``Instruments``.

    ``application`` is the value of the label ``application``, which each series gets: two applications of a cluster may
    have tiers of the same name. A counter of one name is made once: two sums would replace each other in Ray's gauge,
    and to Prometheus each fall is a reset. So a process counts by one of these what it counts for one application.
    """

    def __init__(self, application: str = "", refresh_s: float = REFRESH_S) -> None:
        self._tags = {APPLICATION: application}
        self._sums = SumRefresher(refresh_s)
        self._counters: dict[str, SummedGauge] = {}

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter:
        """Returns the counter ``name``, with its sums if it was made before."""
        if name not in self._counters:
            self._counters[name] = SummedGauge(self.gauge(f"{name}{TOTAL}", description, labels), self._sums)
        return self._counters[name]

    def lasting_counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter:
        """Makes a counter of Ray's, whose series are exported until the node ends. It is for what a process counts just
        before its end."""
        made = RayCounter(name, description, (APPLICATION, *labels))
        made.set_default_tags(self._tags)
        return cast("Counter", made)  # its tags may be None, which it hides

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Gauge:
        made = RayGauge(name, description, (APPLICATION, *labels))
        made.set_default_tags(self._tags)
        return cast("Gauge", made)


class SummedGauge:
    """A counter that sets a gauge to its sum, and has ``sums`` set it again. May be used on any thread. Implements
    ``Counter``."""

    def __init__(self, gauge: Gauge, sums: SumRefresher) -> None:
        self._gauge = gauge
        self._refresher = sums
        self._sums: dict[frozenset[tuple[str, str]], float] = {}
        self._lock = threading.Lock()  # so that no later sum is replaced by an earlier one

    def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
        if value <= 0:
            raise ValueError(f"a counter grows by more than 0, not by {value}")
        key = frozenset((tags or {}).items())
        with self._lock:
            total = self._sums.get(key, 0.0) + value
            self._gauge.set(total, tags)  # raises for labels that Ray refuses, which are not kept then
            if not self._sums:
                self._refresher.add(self)
            self._sums[key] = total

    def refresh(self) -> None:
        """Sets the gauge to the present sums."""
        with self._lock:
            for key, total in self._sums.items():
                self._gauge.set(total, dict(key))


class SumRefresher:
    """Sets the sums that are added again every ``every_s`` seconds, on a thread that begins with the first one and ends
    when nothing else refers to this object."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._added: list[SummedGauge] = []
        self._lock = threading.Lock()

    def add(self, gauge: SummedGauge) -> None:
        """Has ``gauge`` refreshed from now on."""
        with self._lock:
            self._added.append(gauge)
            if len(self._added) == 1:
                run = threading.Thread(
                    target=_keep_refreshing, args=(weakref.ref(self), self._every_s), name="manta-sums", daemon=True
                )
                run.start()

    def refresh(self) -> None:
        with self._lock:
            added = list(self._added)
        for each in added:
            each.refresh()


def _keep_refreshing(reference: weakref.ref[SumRefresher], every_s: float) -> None:
    while True:
        time.sleep(every_s)
        if (refresher := reference()) is None:
            return
        refresher.refresh()
        del refresher
