"""``router_tracer`` and ``replica_tracer``: make the tracers of a process, if the settings ask for traces.

OpenTelemetry's SDK and its exporters are loaded here, in the processes that trace, and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.telemetry.config import TelemetryConfig

if TYPE_CHECKING:
    from cluster.telemetry.otel_tracer import OtelTracer
    from cluster.telemetry.replica_tracer import ReplicaTracer


def router_tracer(config: TelemetryConfig) -> OtelTracer | None:
    """Returns the tracer of a router's requests; None if the settings name no receiver of traces."""
    if config.endpoint is None:
        return None
    from cluster.telemetry.otel_tracer import OtelTracer

    return OtelTracer(config)


def replica_tracer(config: TelemetryConfig, tier: str) -> ReplicaTracer | None:
    """Returns the tracer of the requests of a replica of ``tier``; None if the settings name no receiver of traces."""
    if config.endpoint is None:
        return None
    from cluster.telemetry.replica_tracer import ReplicaTracer

    return ReplicaTracer(config, tier)
