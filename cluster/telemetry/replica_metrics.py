"""``ReplicaMetrics``: exports the metrics of a replica's engine by Ray, to Prometheus.

``engine_metric_definitions.py`` lists them.

The engine counts for itself. The replica publishes what was added since the last time, once a second, so that no token
costs anything here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.telemetry.engine_metric_definitions import COUNTERS, GAUGES, Series, gauges, totals
from cluster.telemetry.instruments import Instruments, RayInstruments
from cluster.telemetry.keep_publishing import keep_publishing
from cluster.telemetry.release import release

if TYPE_CHECKING:
    from engine.metrics import EngineMetrics


class ReplicaMetrics:
    """The metrics of the engine of the replica in this process. ``tier`` is the value of the label ``tier`` of every
    series, ``model_version`` is in the build info. ``instruments`` None: Ray's."""

    def __init__(self, tier: str, model_version: str, instruments: Instruments | None = None) -> None:
        make = instruments or RayInstruments()
        self._tier = tier
        self._model_version = model_version
        self._release = release()
        self._counters = {
            name: make.counter(name, text, ("tier", *labels)) for name, (text, labels) in COUNTERS.items()
        }
        self._gauges = {name: make.gauge(name, text, ("tier", *labels)) for name, (text, labels) in GAUGES.items()}
        self._published: dict[Series, float] = {}

    def publish(self, metrics: EngineMetrics) -> None:
        """Adds what ``metrics`` has counted since the last call to the counters, and sets the gauges."""
        for series, total in totals(metrics):
            added = total - self._published.get(series, 0)
            if added > 0:  # Ray refuses to add 0
                self._counters[series.name].inc(added, self._labels(series, COUNTERS[series.name].labels))
                self._published[series] = total
        for series, value in gauges(metrics, self._model_version, self._release):
            self._gauges[series.name].set(value, self._labels(series, GAUGES[series.name].labels))

    async def keep_publishing(self, read: Callable[[], EngineMetrics]) -> None:
        """Publishes what ``read`` returns every PUBLISH_S, until it is cancelled."""
        await keep_publishing("the publication of the engine's metrics", lambda: self.publish(read()))

    def _labels(self, series: Series, names: tuple[str, ...]) -> dict[str, str]:
        return {"tier": self._tier, **dict(zip(names, series.labels, strict=True))}
