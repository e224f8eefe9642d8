"""``router_tracer``, ``replica_tracer`` and ``call_tracer``: make the tracers of a process, if the settings ask for
traces.

OpenTelemetry's SDK and its exporters are loaded here, in the processes that trace, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from cluster.telemetry.config import TelemetryConfig
from router.ports.trace_names import SpanName

if TYPE_CHECKING:
    from cluster.telemetry.otel_tracer import OtelTracer
    from cluster.telemetry.replica_tracer import ReplicaTracer


class CallTraces(Protocol):
    """The traces of the calls that an actor answers. ``CallTracer`` implements it; its docstrings apply here too."""

    def call(self, headers: Mapping[str, str] | None) -> AbstractContextManager[None]: ...
    def close(self) -> None: ...


class NoCallTraces:
    """Traces nothing. Implements ``CallTraces``."""

    def call(self, headers: Mapping[str, str] | None) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None:
        pass


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


def call_tracer(
    config: TelemetryConfig,
    role: str,
    name: SpanName,
    refusals: tuple[type[Exception], ...] = (),
    application: str = "",
) -> CallTraces:
    """Returns the tracer of the calls to an actor, which traces nothing if the settings name no receiver of traces. The
    other arguments are those of ``CallTracer``."""
    if config.endpoint is None:
        return NoCallTraces()
    from cluster.telemetry.call_tracer import CallTracer

    return CallTracer(config, role, name, refusals, application)
