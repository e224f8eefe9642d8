"""``FaultMetrics``: the counters of faults that no response shows, as Ray metrics, for alerts.

======================================  ======================================  ======================================
counter                                 labels                                  unit
======================================  ======================================  ======================================
ray_manta_lost_records_total            log: ledger, audit                      entries that found no room on disk
ray_manta_unreadable_policies_total     none                                    readings of a stored policy that this
                                                                                release cannot read
ray_manta_lost_texts_total              reason: full, redaction, disk           requests whose texts were to be
                                                                                logged, and are not
======================================  ======================================  ======================================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cluster.telemetry.instruments import Instruments, RayInstruments


class FaultMetrics:
    """Counts the lost records and the unreadable policies of the router in this process. ``instruments`` None:
    Ray's."""

    def __init__(self, instruments: Instruments | None = None) -> None:
        make = instruments or RayInstruments()
        self._lost = make.counter(
            "manta_lost_records", "Entries of the ledger or the audit log that are lost.", ("log",)
        )
        self._unreadable = make.counter("manta_unreadable_policies", "Readings of a policy that cannot be read.")

        self._texts = make.counter(
            "manta_lost_texts", "Requests whose texts were to be logged, and are not.", ("reason",)
        )

    def lost_text(self, reason: str) -> None:
        """Counts a request that is missing in the log of texts. ``reason`` is the value of the label."""
        self._texts.inc(1, {"reason": reason})

    def lost(self, log: str) -> Callable[[], None]:
        """Returns a function that counts one lost entry of ``log``, the value of the label, such as ``ledger``."""
        return partial(self._lost.inc, 1, {"log": log})

    def unreadable_policy(self) -> None:
        """Counts a stored policy that could not be read."""
        self._unreadable.inc(1)
