"""``StartFailures``: counts replicas that do not start, as a Ray metric, for an alert.

======================================  ======================================  ======================================
counter                                 labels                                  unit
======================================  ======================================  ======================================
ray_manta_replica_start_failures_total  tier                                    replicas whose model or engine did not
                                                                                start
======================================  ======================================  ======================================

A process that is killed while it starts counts nothing. Nor does one that no node has room for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cluster.telemetry.instruments import RayInstruments


class StartFailures:
    """Counts the failed starts of the replica in this process, which is of ``tier`` and ``application``."""

    def __init__(self, tier: str, application: str = "") -> None:
        self._tier = tier
        made = RayInstruments(application)
        self._count = made.lasting_counter("manta_replica_start_failures", "Replicas that did not start.", ("tier",))

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts an error that is raised within."""
        try:
            yield
        except Exception:
            self._count.inc(1, {"tier": self._tier})
            raise
