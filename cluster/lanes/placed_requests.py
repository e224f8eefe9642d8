"""``PlacedRequests``: the requests that this router has placed on one replica, as far as prediction needs them.

Load reports come with each step of a replica, or after a heartbeat, so requests that were sent since are in none. Other
routers have sent some too, which this one cannot see. Where routers get equal shares of the traffic, each has
sent about as many as this one: so what this router has sent counts once for each router that is connected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
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


@dataclass(slots=True)
class _Queues:
    """The prompt tokens that a replica has, by class, as of the instant ``at``: those in its last ``load``, without
    what it has likely computed since, and those of the first ``count`` unreported requests."""

    load: ReplicaLoad
    short: list[int]
    long: list[int]
    at: float
    count: int = 0

    def add(self, placed: _Placed, correction: float) -> None:
        """Adds the next unreported request."""
        if placed.placed_at > self.at:
            work_off(self.load, self.short, self.long, (placed.placed_at - self.at) / correction)
            self.at = placed.placed_at
        queue = self.long if 0 < self.load.prefill_chunk < placed.uncached else self.short
        queue[placed.priority - Priority.INTERACTIVE] += max(1, self.load.lanes) * placed.uncached
        self.count += 1


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
        self._queues: _Queues | None = None  # None: they have changed since they were computed
        self._outlook: tuple[ReplicaLoad, float, ReplicaLoad] | None = None  # the last one, of a load and an instant

    @property
    def learnt(self) -> TtftCorrection:
        """The correction of predictions that is learnt from measured TTFTs."""
        return self._correction

    def place(
        self, request_id: str, priority: Priority, uncached: int, load: ReplicaLoad, ttft_s: float, now: float
    ) -> None:
        """Adds a request with ``uncached`` prompt tokens that are not in the replica's prefix cache. ``ttft_s`` is its
        TTFT, in seconds, as predicted from ``load``."""
        known = load.measured and load.correction > 0 and ttft_s > load.overhead_s
        predicted_s = (ttft_s - load.overhead_s) / load.correction if known else 0.0
        placed = _Placed(priority, uncached, predicted_s, ttft_s, now)
        self._forget(request_id)
        self._placed[request_id] = self._unreported[request_id] = placed
        self._outlook = None

    def uncached(self, request_id: str) -> int:
        """Returns the prompt tokens that a request without a first token had to have computed here, when it was placed;
        0 of any other request."""
        placed = self._placed.get(request_id)
        return 0 if placed is None else placed.uncached

    def accepted(self, request_id: str) -> None:
        """Records that the replica has the request."""
        if (placed := self._placed.get(request_id)) is not None:
            placed.accepted = True

    def reported(self, now: float, after_step: bool = False) -> None:
        """Records that a load report has come, which includes all requests that were accepted before. ``after_step``:
        the replica sent it at the end of a step."""
        self._reported_at, self._after_step = now, after_step
        self._queues = self._outlook = None
        if self._unreported:
            self._unreported = {each: placed for each, placed in self._unreported.items() if not placed.accepted}

    def first_token(self, request_id: str, now: float) -> None:
        """Records the first row of a request, and learns from its TTFT. Later rows are ignored."""
        if (placed := self._placed.pop(request_id, None)) is None:
            return
        self._forget(request_id)
        if placed.predicted_s > 0:
            measured_s = now - placed.placed_at
            self._correction.observe(placed.predicted_s, measured_s)
            self._queues = self._outlook = None
            self._on_first_token(placed.corrected_s, measured_s)

    def end(self, request_id: str) -> None:
        """Forgets a request, which has ended, failed or left."""
        self._placed.pop(request_id, None)
        self._forget(request_id)

    def outlook(self, load: ReplicaLoad, now: float) -> ReplicaLoad:
        """Returns the replica's load at the instant ``now``: the last reported ``load``, with the requests that were
        sent since, without the tokens that the replica has likely computed since, and with the learnt correction.

        Each request asks several times in one turn of the event loop, whose clock stands still meanwhile.
        """
        if self._outlook is None or self._outlook[0] is not load or self._outlook[1] != now:
            self._outlook = load, now, self._seen(load, now)
        return self._outlook[2]

    def _seen(self, load: ReplicaLoad, now: float) -> ReplicaLoad:
        """Returns what ``outlook`` does."""
        learnt = self._correction
        correction, overhead_s = learnt.factor, learnt.overhead_s
        if not (self._unreported or load.running or any(load.queued_short) or any(load.queued_long)):
            if self._idle is None or self._idle[0] is not load or self._idle[1] != (correction, overhead_s):
                seen = replace(load, correction=correction, overhead_s=overhead_s)
                self._idle = load, (correction, overhead_s), seen
            return self._idle[2]
        short, long = load.queued_short, load.queued_long
        if short:  # () from a replica whose release reports no tokens
            short, long = self._queued(load, correction, now)
        return replace(
            load,
            waiting=load.waiting + max(1, load.lanes) * len(self._unreported),
            correction=correction,
            overhead_s=overhead_s,
            step_age_s=now - self._reported_at if self._after_step else -1.0,
            queued_short=short,
            queued_long=long,
        )

    def _queued(self, load: ReplicaLoad, correction: float, now: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the tokens of short and of long prompts by class, as of the instant ``now``."""
        queues = self._unreported_queues(load, correction)
        short, long = list(queues.short), list(queues.long)
        work_off(load, short, long, max(0.0, now - queues.at) / correction)
        return tuple(short), tuple(long)

    def _unreported_queues(self, load: ReplicaLoad, correction: float) -> _Queues:
        """Returns the queues with all unreported requests. Those that were placed since the last call are added to what
        is known, since a burst of requests asks after each of them."""
        queues = self._queues
        if queues is None or queues.load is not load:
            queues = self._queues = _Queues(load, list(load.queued_short), list(load.queued_long), self._reported_at)
        for placed in islice(self._unreported.values(), queues.count, None):  # in order of their time
            queues.add(placed, correction)
        return queues

    def _forget(self, request_id: str) -> None:
        """Removes a request from the unreported ones."""
        if self._unreported.pop(request_id, None) is not None:
            self._queues = self._outlook = None
