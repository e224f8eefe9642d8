"""``OtlpInstruments``: counters and gauges that are also sent by OTLP, every ``telemetry.metrics.interval_s``."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from opentelemetry.metrics import Counter as OtelCounter
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.instruments import Counter, Gauge, Instruments
from cluster.telemetry.otlp_exporters import metric_exporter_of

CLOSE_S = 2.0


class OtlpInstruments:
    """Makes the instruments of ``beside``, and sends their values by OTLP too. Implements ``Instruments``. ``role``,
    ``instance`` and ``application`` are as in ``make_otlp_instruments``."""

    def __init__(
        self, config: TelemetryConfig, role: str, instance: str, beside: Instruments, application: str = ""
    ) -> None:
        self._beside = beside
        resource = {
            "service.name": config.service_name,
            "service.instance.id": instance,
            "manta.role": role,
            "manta.application": application,
        }
        reader = PeriodicExportingMetricReader(
            metric_exporter_of(config),
            export_interval_millis=config.metrics.interval_s * 1000,
            export_timeout_millis=config.timeout_s * 1000,
        )
        self._provider = MeterProvider(
            [reader], Resource(resource), exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False
        )
        self._meter: Meter = self._provider.get_meter("manta")

    def counter(self, name: str, description: str, labels: Sequence[str] = ()) -> Counter:
        return _SentCounter(
            self._beside.counter(name, description, labels), self._meter.create_counter(name, "", description)
        )

    def gauge(self, name: str, description: str, labels: Sequence[str] = ()) -> Gauge:
        return _SentGauge(self._beside.gauge(name, description, labels), self._meter, name, description)

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Exports the last values on a thread of its own, and waits for it for at most ``wait_s`` seconds: Serve waits
        for this when a replica ends."""
        closing = threading.Thread(target=self._provider.shutdown, name="manta-last-metrics", daemon=True)
        closing.start()
        closing.join(wait_s)


class _SentCounter:
    def __init__(self, beside: Counter, sent: OtelCounter) -> None:
        self._beside = beside
        self._sent = sent

    def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
        self._beside.inc(value, tags)
        self._sent.add(value, tags)


class _SentGauge:
    def __init__(self, beside: Gauge, meter: Meter, name: str, description: str) -> None:
        self._beside = beside
        self._sent = meter.create_gauge(name, "", description)

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self._beside.set(value, tags)
        self._sent.set(value, tags)
