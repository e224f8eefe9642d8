"""``otlp_instruments``: the instruments of a process whose metrics are sent by OTLP, if the config asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.instruments import RayInstruments

if TYPE_CHECKING:
    from cluster.telemetry.otlp_instruments import OtlpInstruments


def otlp_instruments(
    config: TelemetryConfig, role: str, instance: str, application: str = ""
) -> OtlpInstruments | None:
    """Returns instruments that are Ray's and are sent by OTLP too; None: ``telemetry.metrics`` names no receiver, and
    nothing of OpenTelemetry is loaded. ``role`` is ``router`` or ``replica``, ``instance`` names this process,
    and ``application`` the Serve application that it is a part of."""
    if config.metrics.endpoint is None:
        return None
    from cluster.telemetry.otlp_instruments import OtlpInstruments

    return OtlpInstruments(config, role, instance, application, RayInstruments(application))
