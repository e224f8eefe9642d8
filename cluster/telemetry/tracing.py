"""``router_tracer`` and ``replica_tracer``: make the tracers of a process, if the settings ask for traces.

OpenTelemetry's SDK and its exporters are loaded here, in the processes that trace, and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.telemetry.config import TelemetryConfig

if TYPE_CHECKING:
    from cluster.telemetry.otel_tracer import OtelTracer
    from cluster.telemetry.replica_tracer import ReplicaTracer


def router_tracer(config: TelemetryConfig, application: str = "") -> OtelTracer | None:
    """Returns the tracer of the requests of a router of ``application``; None if the settings name no receiver of
    traces."""
    if config.endpoint is None:
        return None
    from cluster.telemetry.otel_tracer import OtelTracer

    return OtelTracer(config, application)


def replica_tracer(config: TelemetryConfig, tier: str, application: str = "") -> ReplicaTracer | None:
    """Returns the tracer of the requests of a replica of ``tier``; None if the settings name no receiver of traces."""
    if config.endpoint is None:
        return None
    from cluster.telemetry.replica_tracer import ReplicaTracer

    return ReplicaTracer(config, tier, application)
