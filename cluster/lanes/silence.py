"""``Silence``: how long a replica was not heard, and whether that means that it is lost. Pure.

A replica sends a heartbeat every 0.5 s from its event loop, while its engine works on a thread of its own: however long
a step takes, heartbeats come, since the kernels and libraries of a step let go of Python's interpreter. A process that
hangs sends none. Neither does one that the network has cut off, and a router that is busy itself hears none. So silence
is counted in ticks of the router's own event loop, of which a loop that stands still has none; and a replica is lost
early only while another one of its tier is heard.
"""

from __future__ import annotations

from dataclasses import dataclass

TICK_S = 0.25
"""Seconds between two ticks."""
QUIET_S = 1.25
"""Seconds without an item after which a replica gets no new requests, if another one can take them: two heartbeats and
a half."""
MAX_SILENCE_S = 20.0
"""Seconds without an item after which a replica is lost, whatever is heard of others."""


@dataclass(slots=True)
class Silence:
    """The time since a replica was heard last, in ``ticks`` of TICK_S. ``limit_s``: the seconds after which it is lost
    while another one is heard."""

    limit_s: float
    ticks: int = 0

    @property
    def seconds(self) -> float:
        """The seconds since the replica was heard last. The value may be up to TICK_S too high."""
        return self.ticks * TICK_S

    @property
    def quiet(self) -> bool:
        """Whether the replica is late with its heartbeat, and may be lost."""
        return self.seconds >= QUIET_S

    def is_lost(self, another_is_heard: bool) -> bool:
        """Returns whether the replica counts as lost. ``another_is_heard``: this router hears another replica of the
        tier, so that the fault is not its own; else the limit is MAX_SILENCE_S."""
        return self.seconds >= (self.limit_s if another_is_heard else MAX_SILENCE_S)
