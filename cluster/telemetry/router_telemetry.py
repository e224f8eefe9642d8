"""``RouterTelemetry``: the metrics and traces of the router in this process, and their way out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from cluster.telemetry.application_name import application_name
from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.dependency_gauges import Dependencies, DependencyGauges
from cluster.telemetry.fault_metrics import FaultMetrics
from cluster.telemetry.instruments import RayInstruments
from cluster.telemetry.keep_publishing import keep_publishing
from cluster.telemetry.logs import replica_name
from cluster.telemetry.make_otlp_instruments import make_otlp_instruments
from cluster.telemetry.router_build_info import RouterBuildInfo
from cluster.telemetry.summed_instruments import SummedInstruments
from cluster.telemetry.tracing import router_tracer


class RouterTelemetry:
    """The instruments and the tracer of a router. ``summed`` are the instruments of what each request changes.
    ``tracer`` None: nothing is traced. ``application`` and ``router`` are the names of the application and of this
    router."""

    def __init__(self, config: TelemetryConfig) -> None:
        self.application, self.router = application_name(), replica_name()
        self._sent = make_otlp_instruments(config, "router", self.router, self.application)
        self._instruments = self._sent or RayInstruments(self.application)
        self.summed = SummedInstruments(self._instruments)
        self.faults = FaultMetrics(self._instruments)
        self.tracer = router_tracer(config, self.application)

    def publisher(self, dependencies: Dependencies) -> Callable[[], Awaitable[None]]:
        """Makes the gauges of ``dependencies`` and of the release. Returns ``publish_until_end`` with them."""
        return partial(
            self.publish_until_end,
            (DependencyGauges(dependencies, self._instruments), RouterBuildInfo(self._instruments)),
        )

    async def publish_until_end(self, gauges: Sequence[DependencyGauges | RouterBuildInfo]) -> None:
        """Publishes ``gauges`` and what was summed until it is cancelled. Then publishes the last sums, and exports the
        last spans and counts."""

        def publish() -> None:
            self.summed.publish()
            for each in gauges:
                each.publish()

        try:
            await keep_publishing("the publication of the router's metrics", publish)
        finally:
            self.summed.publish()
            for exporter in (self.tracer, self._sent):
                if exporter is not None:
                    await asyncio.to_thread(exporter.close)
