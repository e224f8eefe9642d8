"""``LatencyWindow``: the latencies of the last seconds, from histograms that count since the start."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from cluster.autoscaling.replica_report import BUCKETS, WAITED_FOR, WINDOW_S, Buckets, WindowedLatencies
from engine.api import ClassLoad, EngineLoad, Priority


class _Counted(NamedTuple):
    at_s: float
    ttft: dict[Priority, Buckets]
    itl: Buckets
    itl_s: float


class LatencyWindow:
    """Keeps the counts of an engine at the instants at which it was asked. The first window begins with the engine."""

    def __init__(self, at_s: float) -> None:
        nothing = (0,) * BUCKETS
        self._counted = deque([_Counted(at_s, dict.fromkeys(WAITED_FOR, nothing), nothing, 0.0)])

    def latencies(self, load: EngineLoad, at_s: float) -> WindowedLatencies:
        """Returns the latencies of about WINDOW_S seconds before ``at_s``, by a clock that only goes forward."""
        ttft = {priority: load.classes.get(priority, ClassLoad()).ttft for priority in WAITED_FOR}
        new = _Counted(at_s, ttft, load.itl, load.itl_s)
        while len(self._counted) > 1 and self._counted[1].at_s <= at_s - WINDOW_S:
            self._counted.popleft()
        first = self._counted[0]
        self._counted.append(new)
        return WindowedLatencies(
            at_s - first.at_s,
            {priority: _difference(ttft[priority], first.ttft[priority]) for priority in WAITED_FOR},
            _difference(new.itl, first.itl),
            new.itl_s - first.itl_s,
        )


def _difference(now: Buckets, before: Buckets) -> Buckets:
    return tuple(each - earlier for each, earlier in zip(now, before, strict=True))
