"""``BusyCounts``: what a replica of a follower (Router, SafetyClassifier, ...) tells the autoscaler. Pure.

Busy seconds are CPU seconds of its process. A router is one event loop, and each small model computes on one thread, so
that a replica has one second of them in a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

REQUESTS, BUSY_S = "requests", "busy_s"


@dataclass(frozen=True, slots=True)
class BusyCounts:
    """The requests that a replica has begun since its start, and the busy seconds of its process since then."""

    requests: int
    busy_s: float

    def numbers(self) -> dict[str, float]:
        """Returns the counts as numbers by name, for ``counts_of``."""
        return {REQUESTS: float(self.requests), BUSY_S: self.busy_s}


def counts_of(numbers: Mapping[str, float]) -> BusyCounts | None:
    """Returns the counts in a replica's report; None if they are missing or make no sense."""
    requests, busy_s = numbers.get(REQUESTS), numbers.get(BUSY_S)
    if requests is None or busy_s is None or not isfinite(requests + busy_s) or min(requests, busy_s) < 0:
        return None
    return BusyCounts(int(requests), busy_s)
