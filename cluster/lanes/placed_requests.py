"""``PlacedRequests``: the requests that this router has placed on one replica, as far as prediction needs them.

Load reports come with each step of a replica, or after a heartbeat, so requests that were sent since are in none. Other
routers have sent some too, which this one cannot see. Where routers get equal shares of the traffic, each has
sent about as many as this one: so what this router has sent counts once for each router that is connected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

from cluster.lanes.ttft_correction import TtftCorrection
from engine.api import Priority
from router.latency_prediction import work_off
from router.ports.replica_load import ReplicaLoad

OnFirstToken = Callable[[float, float], None]
"""Takes the predicted and the measured TTFT of a request, in seconds."""


@dataclass(slots=True)
class _Placed:
    """A request without a first token. ``predicted_s``: without correction; 0: nothing could be predicted."""

    priority: Priority
    uncached: int  # tokens of its prompt
    predicted_s: float
    corrected_s: float
    placed_at: float
    accepted: bool = False  # by the replica, so that its next report has the request


class PlacedRequests:
    """The requests on one replica. Instants are seconds of the event loop's clock, passed in by the caller."""

    def __init__(self, on_first_token: OnFirstToken = lambda _, __: None) -> None:
        self._on_first_token = on_first_token
        self._placed: dict[str, _Placed] = {}
        self._unreported: dict[str, _Placed] = {}
        self._correction = TtftCorrection()
        self._reported_at = -inf
        self._after_step = False  # whether that was the end of a step
        self._idle: tuple[ReplicaLoad, tuple[float, float], ReplicaLoad] | None = None  # of an idle replica

    def place(
        self, request_id: str, priority: Priority, uncached: int, load: ReplicaLoad, ttft_s: float, now: float
    ) -> None:
        """Adds a request with ``uncached`` prompt tokens that are not in the replica's prefix cache. ``ttft_s`` is its
        TTFT, in seconds, as predicted from ``load``."""
        known = load.measured and load.correction > 0 and ttft_s > load.overhead_s
        predicted_s = (ttft_s - load.overhead_s) / load.correction if known else 0.0
        placed = _Placed(priority, uncached, predicted_s, ttft_s, now)
        self._placed[request_id] = self._unreported[request_id] = placed

    def accepted(self, request_id: str) -> None:
        """Records that the replica has the request."""
        if (placed := self._placed.get(request_id)) is not None:
            placed.accepted = True

    def reported(self, now: float, after_step: bool = False) -> None:
        """Records that a load report has come, which includes all requests that were accepted before. ``after_step``:
        the replica sent it at the end of a step."""
        self._reported_at, self._after_step = now, after_step
        if self._unreported:
            self._unreported = {each: placed for each, placed in self._unreported.items() if not placed.accepted}

    def first_token(self, request_id: str, now: float) -> None:
        """Records the first row of a request, and learns from its TTFT. Later rows are ignored."""
        if (placed := self._placed.pop(request_id, None)) is None:
            return
        self._unreported.pop(request_id, None)
        if placed.predicted_s > 0:
            measured_s = now - placed.placed_at
            self._correction.observe(placed.predicted_s, measured_s)
            self._on_first_token(placed.corrected_s, measured_s)

    def end(self, request_id: str) -> None:
        """Forgets a request, which has ended, failed or left."""
        self._placed.pop(request_id, None)
        self._unreported.pop(request_id, None)

    def outlook(self, load: ReplicaLoad, now: float) -> ReplicaLoad:
        """Returns the replica's load at the instant ``now``: the last reported ``load``, with the requests that were
        sent since, without the tokens that the replica has likely computed since, and with the learnt correction."""
        learnt = self._correction
        correction, overhead_s = learnt.factor, learnt.overhead_s
        if not (self._unreported or load.running or any(load.queued_short) or any(load.queued_long)):
            if self._idle is None or self._idle[0] is not load or self._idle[1] != (correction, overhead_s):
                seen = replace(load, correction=correction, overhead_s=overhead_s)
                self._idle = load, (correction, overhead_s), seen
            return self._idle[2]
        routers = max(1, load.lanes)
        seen = replace(
            load,
            waiting=load.waiting + routers * len(self._unreported),
            correction=correction,
            overhead_s=overhead_s,
            step_age_s=now - self._reported_at if self._after_step else -1.0,
        )
        if not load.queued_short:
            return seen  # its release reports no tokens
        short, long = list(load.queued_short), list(load.queued_long)
        at = self._reported_at
        for placed in self._unreported.values():  # in order of their time
            if placed.placed_at > at:
                work_off(load, short, long, (placed.placed_at - at) / correction)
                at = placed.placed_at
            queue = long if 0 < load.prefill_chunk < placed.uncached else short
            queue[placed.priority - Priority.INTERACTIVE] += routers * placed.uncached
        work_off(load, short, long, max(0.0, now - at) / correction)
        return replace(seen, queued_short=tuple(short), queued_long=tuple(long))
