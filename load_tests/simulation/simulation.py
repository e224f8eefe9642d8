"""``Simulation``: the event loop. A trace, a policy and a seed in, what happened to every request out.

Our own loop instead of simpy: there each request would be a generator that is resumed by an environment, some 20 to 50
µs per request with a handful of events. Here arrivals are read off sorted arrays and only replicas have entries in the
heap, one for each, so that an event costs a few microseconds. The order of events is total (time, then arrivals after
what ends at the same instant, then slots), so a run depends on its inputs and the seed alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from math import inf

import numpy as np
from numpy.typing import NDArray

from cluster.config import PlacementConfig
from engine.garbage_collection import gc_paused
from load_tests.simulation.admission import SimulatedAdmission
from load_tests.simulation.fleet import Fleet
from load_tests.simulation.observation import Counters, FirstTokens, Latencies, Observation, Policy
from load_tests.simulation.placement import PEERS, PREDICTED, Asked, Placement, PredictedTtft
from load_tests.simulation.profile import ReplicaProfile
from load_tests.simulation.replica import Replica
from load_tests.simulation.slo import Slo
from load_tests.simulation.trace import BLOCK_TOKENS, Trace

MAX_OVERTIME_S = 3600.0  # after the end of the trace, in which what is left is served
CLASSES = 2
DEFAULT_SLO = Slo()
AFFINITY_WEIGHT = PlacementConfig().affinity_weight


@dataclass(frozen=True, slots=True)
class Settings:
    """How replicas behave, apart from their speed. Times in seconds."""

    profile: ReplicaProfile
    slo: Slo = DEFAULT_SLO
    replicas_min: int = 1
    replicas_max: int = 1000
    replicas_start: int = 1  # that serve when the trace starts
    cold_start_s: float = 60.0
    cold_start_spread: float = 0.1  # each start takes up to this part more or less
    failures_per_hour: float = 0.0  # crashes of a serving replica
    stuck_share: float = 0.0  # of starts that never get ready
    max_outstanding: int = 1024  # at one replica; a request beyond is refused
    admission: bool = False  # whether the router's admission refuses what cannot be in time; False: all is queued
    placement: str = PREDICTED  # or a name in placement.PEERS
    affinity_weight: float = AFFINITY_WEIGHT
    routers: int = 1  # that place requests, each by what it knows
    report_s: float = 0.0  # between two load reports of a replica to a router; 0: routers know the load at once
    seed: int = 0


@dataclass(slots=True)
class Outcome:
    """What happened. Arrays have the shape [requests]; an instant is NaN if it never came."""

    trace: Trace
    settings: Settings
    policy: str
    first: NDArray[np.float64]  # instants of the first tokens, seconds from the start of the trace
    end: NDArray[np.float64]  # instants of the last tokens
    refused: int
    failures: int
    changes: int  # of the target
    series: list[tuple[float, int, int]]  # (instant, replicas that hold GPUs, replicas that serve), at each change
    targets: list[tuple[float, int]] = field(default_factory=list)
    hit_rate: float = 0.0  # the part of all prompt tokens that was in a prefix cache
    predictions: list[tuple[float, float]] = field(default_factory=list)  # predicted and measured TTFTs, seconds


def placement_of(trace: Trace, settings: Settings) -> Placement:
    """Returns a new placement. Raises KeyError for an unknown name."""
    if settings.placement == PREDICTED:
        output = float(trace.output.mean())
        return PredictedTtft(output, settings.affinity_weight, settings.routers, settings.report_s)
    return PEERS[settings.placement]()


class Simulation:
    """One run. ``progress`` is called with the simulated time at each decision. The run ends early, with what it has,
    after more than ``max_late`` interactive requests were refused, or had their first tokens too late."""

    def __init__(
        self,
        trace: Trace,
        policy: Policy,
        settings: Settings,
        progress: Callable[[float], None] | None = None,
        max_late: int | None = None,
    ) -> None:
        self._trace = trace
        self._policy = policy
        self._settings = settings
        self._progress = progress
        self._random = np.random.default_rng([settings.seed, 4])
        count = len(trace)
        self._prompt: list[int] = trace.prompt.tolist()
        self._answer: list[int] = trace.output.tolist()
        self._output = self._answer.copy()  # less what was emitted before a crash
        self._class: list[int] = [0] * count if trace.priority is None else trace.priority.tolist()
        self._arrival: list[float] = trace.arrival.tolist()
        self._allowance: list[float] = (settings.slo.ttft_s_per_token * trace.prompt).tolist()
        self._first = [-1.0] * count
        self._end = [-1.0] * count
        slots = 2 * settings.replicas_max + 1  # draining replicas still have theirs
        self._fleet = Fleet(settings.profile, slots)
        self._placement = placement_of(trace, settings)
        self._admission = SimulatedAdmission(settings.slo, float(trace.output.mean())) if settings.admission else None
        self._prompt_tokens = self._cached_tokens = 0
        self._events: list[tuple[float, int]] = []  # heap of (due, slot)
        self._lifecycle: list[tuple[float, int, str, float]] = []  # heap of (instant, slot, what, instant of its start)
        self._room: deque[int] = deque()
        self._target = min(max(settings.replicas_start, settings.replicas_min), settings.replicas_max)
        self._counters = [Counters() for _ in range(CLASSES)]
        self._latencies = [Latencies() for _ in range(CLASSES)]
        self._uncached = self._prompt.copy()  # of the latest placement
        self._first_tokens = [FirstTokens() for _ in range(CLASSES)]  # since the last decision
        self._itl: list[list[float]] = [[] for _ in range(CLASSES)]
        self._left = count
        self._late = 0
        self._max_late = count if max_late is None else max_late
        self._refused = self._failures = self._changes = 0
        self._series: list[tuple[float, int, int]] = []
        self._targets: list[tuple[float, int]] = [(0.0, self._target)]

    def run(self) -> Outcome:
        """Runs until every request has ended, or MAX_OVERTIME_S after the end of the trace."""
        with gc_paused():  # a run makes hundreds of thousands of objects that stay until its end
            self._run()
        return self._outcome()

    def _run(self) -> None:
        for _ in range(self._target):
            slot = self._fleet.start(0.0)
            if slot is not None:
                self._serve(slot, 0.0)
        self._note(0.0)
        arrivals = self._arrival
        count = len(arrivals)
        events = self._events
        lifecycle = self._lifecycle
        last = self._trace.duration + MAX_OVERTIME_S
        position = 0
        arrival = arrivals[0]
        tick = 0.0
        now = min(lifecycle[0][0] if lifecycle else inf, arrival, tick)  # of the next event that is not a replica's
        while self._left and self._late <= self._max_late:
            if events and events[0][0] <= now:
                if events[0][0] > last:
                    break
                self._fire(events[0][0])
                continue
            if now > last:
                break
            if lifecycle and lifecycle[0][0] == now:
                self._change(now)
            elif arrival == now:
                self._arrive(position, now)
                position += 1
                arrival = arrivals[position] if position < count else inf
            else:
                self._decide(now)
                tick = now + self._policy.interval_s
            now = min(lifecycle[0][0] if lifecycle else inf, arrival, tick)

    def _outcome(self) -> Outcome:
        first, end = np.asarray(self._first), np.asarray(self._end)
        return Outcome(
            self._trace,
            self._settings,
            self._policy.name,
            np.where(first < 0, np.nan, first),
            np.where(end < 0, np.nan, end),
            self._refused,
            self._failures,
            self._changes,
            self._series,
            self._targets,
            self._cached_tokens / max(1, self._prompt_tokens),
            self._placement.errors if isinstance(self._placement, PredictedTtft) else [],
        )

    def _arrive(self, request: int, now: float) -> None:
        counters = self._counters[self._class[request]]
        counters.arrivals += 1
        counters.prompt_tokens += self._prompt[request]
        if self._prompt[request] + self._output[request] > self._settings.profile.kv_tokens:
            self._refuse(request)
            return
        admission = self._admission
        if admission is None or admission.admits(
            request, self._class[request], self._prompt[request], self._fleet, now, self._trace.chain(request)
        ):
            self._place(request, now)
        else:
            self._refuse(request)

    def _place(self, request: int, now: float) -> None:
        """Sends a request to a replica, or to the waiting room if none serves, or refuses it."""
        fleet = self._fleet
        if not fleet.ready:
            self._room.append(request)
            return
        chain = self._trace.chain(request)
        prompt = self._prompt[request]
        slot = self._placement.choose(fleet, Asked(request, chain, prompt, now))
        replica = fleet.replica(slot)
        if replica.outstanding >= self._settings.max_outstanding:
            if self._admission is not None:
                self._admission.ended(request, now)
            self._refuse(request)
            return
        uncached = prompt
        if chain:
            uncached -= min(fleet.prefixes.matched(slot, chain) * BLOCK_TOKENS, prompt - 1)
            profile = self._settings.profile
            fleet.prefixes.remember(slot, chain, max(profile.kv_tokens - replica.kv_reserved, 0) // BLOCK_TOKENS)
        if self._admission is not None:
            self._admission.placed(request, slot, uncached)
        self._uncached[request] = uncached
        self._counters[self._class[request]].uncached_tokens += uncached
        self._prompt_tokens += prompt
        self._cached_tokens += prompt - uncached
        replica.submit(now, request, prompt, self._output[request], uncached / self._settings.profile.prefill_tokens_s)
        self._moved(replica)

    def _refuse(self, request: int) -> None:
        self._counters[self._class[request]].refusals += 1
        self._refused += 1
        self._left -= 1
        self._late += not self._class[request]

    def _moved(self, replica: Replica) -> None:
        """A replica has changed: its next event and its cost."""
        if replica.due < inf:
            heappush(self._events, (replica.due, replica.slot))
        self._fleet.note_load(replica)

    def _fire(self, now: float) -> None:
        slot = self._events[0][1]
        replica = self._fleet.replicas[slot]
        if replica is None or replica.due != now:
            heappop(self._events)  # an entry that a later change has replaced
            return
        first, ended = replica.fire()
        if replica.due < inf:
            heapreplace(self._events, (replica.due, slot))  # one way through the heap, where pop and push are two
        else:
            heappop(self._events)
        if first >= 0 and self._first[first] < 0:
            self._first[first] = now
            self._placement.first_token(first, now)
            if self._admission is not None:
                self._admission.first_token(first, now)
            ttft = now - self._arrival[first]
            kind = self._class[first]
            first_tokens = self._first_tokens[kind]
            first_tokens.ttft_s.append(ttft)
            first_tokens.uncached_tokens.append(self._uncached[first])
            if ttft - self._allowance[first] > self._settings.slo.ttft_s and not kind:
                self._late += 1
        for request in ended:
            self._end[request] = now
            if self._admission is not None:
                self._admission.ended(request, now)
            kind = self._class[request]
            counters = self._counters[kind]
            output = self._answer[request]
            counters.finished += 1
            counters.output_tokens += output
            if output > 1:
                self._itl[kind].append((now - self._first[request]) / (output - 1))
        if ended:
            self._left -= len(ended)
            if slot in self._fleet.draining:
                self._fleet.end_if_empty(slot)
                self._note(now)
        self._fleet.note_load(replica)

    def _decide(self, now: float) -> None:
        fleet = self._fleet
        for kind in range(CLASSES):
            self._latencies[kind].add(now, self._first_tokens[kind].ttft_s, self._itl[kind])
            self._itl[kind].clear()
        ready = [fleet.replica(slot) for slot in fleet.ready]
        for replica in ready:
            replica.advance(now)
        seen = Observation(
            at=now,
            target=self._target,
            ready=ready,
            starting=list(fleet.starting.values()),
            draining=[fleet.replica(slot) for slot in fleet.draining],
            ready_since=list(fleet.ready.values()),
            room=[self._prompt[request] for request in self._room],
            room_since=self._arrival[self._room[0]] if self._room else now,
            counters=self._counters,
            latencies=self._latencies,
            first_tokens=self._first_tokens,
        )
        target = min(max(self._policy.decide(seen), self._settings.replicas_min), self._settings.replicas_max)
        for first_tokens in self._first_tokens:
            first_tokens.clear()
        if target != self._target:
            self._changes += now <= self._trace.duration
            self._target = target
            self._targets.append((now, target))
        self._reconcile(now)
        if self._progress is not None:
            self._progress(now)

    def _reconcile(self, now: float) -> None:
        """Starts or ends replicas until as many start or serve as the target says."""
        fleet = self._fleet
        missing = self._target - fleet.active
        if missing == 0:
            return
        for _ in range(missing):
            slot = fleet.start(now)
            if slot is None:
                break
            spread = self._settings.cold_start_spread
            delay = self._settings.cold_start_s * (1 + self._random.uniform(-spread, spread))
            if self._random.random() >= self._settings.stuck_share:
                heappush(self._lifecycle, (now + delay, slot, "ready", now))
        if missing < 0:
            left = -missing - fleet.cancel(-missing)
            if left:
                waited = fleet.drain(left, now)
                for ending in fleet.draining:
                    self._moved(fleet.replica(ending))
                for request in waited:
                    self._place(request, now)
        self._note(now)

    def _change(self, now: float) -> None:
        """A replica gets ready or crashes, unless it has ended before."""
        _, slot, what, since = heappop(self._lifecycle)
        fleet = self._fleet
        if what == "ready":
            begun = fleet.starting.get(slot)
            if begun is not None and begun.since == since:
                self._serve(slot, now)
                self._note(now)
        elif fleet.ready.get(slot) == since:
            self._crash(slot, now)

    def _serve(self, slot: int, now: float) -> None:
        """A replica begins to serve, and takes what is in the waiting room."""
        self._fleet.make_ready(slot, now)
        if self._settings.failures_per_hour > 0:
            after = self._random.exponential(3600 / self._settings.failures_per_hour)
            heappush(self._lifecycle, (now + after, slot, "crash", now))
        waited, self._room = self._room, deque()
        for request in waited:
            self._place(request, now)

    def _crash(self, slot: int, now: float) -> None:
        """Requests go on elsewhere: what they have emitted becomes a part of the prompt. Serve starts a new replica."""
        self._failures += 1
        for request, emitted in self._fleet.fail(slot, now):
            self._prompt[request] += emitted
            self._output[request] -= emitted
            self._place(request, now)
        self._reconcile(now)
        self._note(now)

    def _note(self, now: float) -> None:
        entry = (now, self._fleet.allocated, len(self._fleet.ready))
        if self._series and self._series[-1][0] == now:
            self._series[-1] = entry
        else:
            self._series.append(entry)
