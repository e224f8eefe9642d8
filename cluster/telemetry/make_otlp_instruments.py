"""``make_otlp_instruments``: the instruments of a process that sends its metrics by OTLP, if the settings ask for it.

OpenTelemetry's SDK is loaded here, in the processes that send, and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.telemetry.config import TelemetryConfig
from cluster.telemetry.instruments import RayInstruments

if TYPE_CHECKING:
    from cluster.telemetry.otlp_instruments import OtlpInstruments


def make_otlp_instruments(
    config: TelemetryConfig, role: str, instance: str, application: str = "", beside: RayInstruments | None = None
) -> OtlpInstruments | None:
    """Returns instruments whose values go to Ray and by OTLP to the receiver of ``config.metrics``; None if it names no
    receiver, and then nothing of OpenTelemetry is loaded. ``role`` is ``router``, ``replica`` or ``autoscaler``,
    ``instance`` the name of this process, and ``application`` that of its Serve application. ``beside`` are Ray's
    instruments, if this process has counted by them already; None: new ones."""
    if config.metrics.endpoint is None:
        return None
    from cluster.telemetry.otlp_instruments import OtlpInstruments

    return OtlpInstruments(config, role, instance, beside or RayInstruments(application), application)
