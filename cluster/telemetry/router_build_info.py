"""``RouterBuildInfo``: what a router runs, as a gauge in Ray's metrics, which Prometheus reads from every node.

======================================  ======================================  ======================================
gauge                                   labels                                  unit
======================================  ======================================  ======================================
ray_manta_router_build_info             release                                 always 1
======================================  ======================================  ======================================

That of a replica (``engine_metric_definitions``) has other labels, and Ray wants the same ones of all series of a name.
"""

from __future__ import annotations

from cluster.telemetry.instruments import Instruments, RayInstruments
from cluster.telemetry.release import release


class RouterBuildInfo:
    """The build info of the router in this process. ``instruments`` None: Ray's."""

    def __init__(self, instruments: Instruments | None = None) -> None:
        make = instruments or RayInstruments()
        self._info = make.gauge("manta_router_build_info", "Always 1: what the router runs.", ("release",))
        self._labels = {"release": release()}

    def publish(self) -> None:
        """Sets the gauge."""
        self._info.set(1, self._labels)
