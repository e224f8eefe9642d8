"""``router_tracer`` and ``replica_tracer``: what traces, if the settings ask for traces.

OpenTelemetry's SDK and its exporters are loaded here, in the processes that trace, and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.telemetry.config import TelemetryConfig

if TYPE_CHECKING:
    from cluster.telemetry.otel_tracer import OtelTracer
    from cluster.telemetry.replica_tracer import ReplicaTracer


def router_tracer(config: TelemetryConfig) -> OtelTracer | None:
    """Returns what traces the requests of a router; None: there is no receiver."""
    if config.endpoint is None:
        return None
    from cluster.telemetry.otel_tracer import OtelTracer

    return OtelTracer(config)


def replica_tracer(config: TelemetryConfig, tier: str) -> ReplicaTracer | None:
    """Returns what traces the requests of a replica of ``tier``; None: there is no receiver."""
    if config.endpoint is None:
        return None
    from cluster.telemetry.replica_tracer import ReplicaTracer

    return ReplicaTracer(config, tier)
