"""The fluid mode: a tier of any size as one body of work. Its cost grows with the ticks, not with requests or replicas.

Each tick of TICK_S the prompts that arrive join a backlog of prefill seconds, which all ready replicas work off
together; sequences that decode end at the rate of a step per token. A request's TTFT is the backlog that it finds, by
the rate at which it shrinks, and its own prefill; its ITL is that of the steps at its arrival. So the fluid has no
chance and no placement: it is right where replicas are many and each is busy, and too kind where they are few.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from load_tests.simulation.measures import ClassMeasures, Measures, percentiles, replica_hours
from load_tests.simulation.observation import Counters, Latencies, Observation, Policy, Starting
from load_tests.simulation.simulation import Settings
from load_tests.simulation.trace import Trace
from load_tests.simulation.workload import cached_tokens

TICK_S = 1.0
MEAN_S = 60.0  # over which mean lengths are taken
OVERTIME_S = 600.0


@dataclass(frozen=True, slots=True)
class MeanReplica:
    """What each replica of the fluid looks like to a policy."""

    slot: int
    outstanding: int
    waiting: Sequence[int]
    prefilling: int
    decoding: int
    backlog_s: float
    prompt_tokens: int
    kv_resident: float
    kv_reserved: int
    step_now_s: float


@dataclass(slots=True)
class _State:
    ready: int
    backlog_s: float = 0.0  # of prefill, of the whole tier
    queued: float = 0.0  # requests in it
    decoding: float = 0.0  # sequences
    prompt: float = 1.0  # mean tokens
    uncached: float = 1.0
    output: float = 1.0


@dataclass(frozen=True, slots=True)
class FluidOutcome:
    """Targets and capacity over time, as ``Outcome`` has them, and the measures."""

    measures: Measures
    series: list[tuple[float, int, int]]
    targets: list[tuple[float, int]]


def simulate_fluid(
    trace: Trace, weight: float, policy: Policy, settings: Settings, progress: Callable[[float], None] | None = None
) -> FluidOutcome:
    """Runs ``trace`` with every request counted ``weight`` times. Crashes and stuck starts are left out."""
    capacity = _Capacity(settings)
    uncached = trace.prompt - cached_tokens(trace)
    ticks = ceil((trace.duration + OVERTIME_S) / TICK_S)
    borders = np.searchsorted(trace.arrival, TICK_S * np.arange(1, ticks + 1))
    state = _State(settings.replicas_start)
    counters, latencies = (Counters(), Counters()), (Latencies(), Latencies())
    ttft, itl = np.full(len(trace), np.nan), np.full(len(trace), np.nan)
    next_decision, begin = 0.0, 0
    for tick in range(ticks):
        now = tick * TICK_S
        own = slice(begin, int(borders[tick]))
        begin = own.stop
        state.ready = capacity.advance(now)
        _means(state, trace, uncached, own)
        _arrive(counters[0], trace, uncached, own, weight)
        wait, stretch, step = _advance(state, settings, uncached[own], weight, counters[0])
        ttft[own] = wait + uncached[own] / settings.profile.prefill_tokens_s * stretch
        itl[own] = step
        latencies[0].add(now, ttft[own].tolist(), itl[own].tolist())
        if now < next_decision:
            continue
        next_decision = now + policy.interval_s
        latencies[1].add(now, (), ())
        replica = _mean_replica(state, settings, step)
        capacity.resize(policy.decide(capacity.observation(now, replica, counters, latencies)), now)
        if progress is not None:
            progress(now)
    measures = _measure(trace, weight, policy.name, settings, capacity, ttft, itl)
    return FluidOutcome(measures, capacity.series, capacity.targets)


class _Capacity:
    """How many replicas start and serve."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._target = settings.replicas_start
        self._since = [0.0] * self._target  # of those that serve
        self._starting: deque[float] = deque()  # instants at which they were ordered
        self.series = [(0.0, self._target, self._target)]
        self.targets = [(0.0, self._target)]

    def advance(self, now: float) -> int:
        """Lets replicas get ready until ``now``. Returns how many serve."""
        while self._starting and self._starting[0] + self._settings.cold_start_s <= now:
            self._starting.popleft()
            self._since.append(now)
        self._note(now)
        return len(self._since)

    def resize(self, wanted: int, now: float) -> None:
        """Starts or ends replicas, those that start first. Their last requests are finished within the tick."""
        target = min(max(wanted, self._settings.replicas_min, 1), self._settings.replicas_max)
        if target != self._target:
            self._target = target
            self.targets.append((now, target))
        missing = target - len(self._since) - len(self._starting)
        self._starting.extend([now] * missing)
        for _ in range(-missing):
            (self._starting if self._starting else self._since).pop()
        self._note(now)

    def observation(
        self, now: float, replica: MeanReplica, counters: Sequence[Counters], latencies: Sequence[Latencies]
    ) -> Observation:
        """Returns what a policy sees: as many times ``replica`` as serve."""
        return Observation(
            at=now,
            target=self._target,
            ready=[replica] * len(self._since),
            starting=[Starting(-1 - number, since) for number, since in enumerate(self._starting)],
            draining=(),
            ready_since=self._since,
            room=(),
            room_since=now,
            counters=counters,
            latencies=latencies,
        )

    def _note(self, now: float) -> None:
        entry = (now, len(self._since) + len(self._starting), len(self._since))
        if self.series[-1][1:] != entry[1:]:
            self.series.append(entry)


def _measure(
    trace: Trace,
    weight: float,
    policy: str,
    settings: Settings,
    capacity: _Capacity,
    ttft: NDArray[np.float64],
    itl: NDArray[np.float64],
) -> Measures:
    kept = settings.slo.kept(ttft, itl, trace.prompt)
    hours = replica_hours(capacity.series, trace.duration)
    count = round(len(trace) * weight)
    whole = ClassMeasures(count, float(kept.mean()), *percentiles(ttft), *percentiles(itl))
    return Measures(
        policy=policy,
        requests=count,
        served=count,
        refused=0,
        missed=0,
        attainment=whole.attainment,
        gpu_hours=hours * settings.profile.gpus,
        mean_replicas=hours * 3600 / trace.duration,
        peak_replicas=max(allocated for at, allocated, _ in capacity.series if at <= trace.duration),
        changes=sum(at <= trace.duration for at, _ in capacity.targets) - 1,
        failures=0,
        classes={"interactive": whole},
    )


def _means(state: _State, trace: Trace, uncached: NDArray[np.int64], own: slice) -> None:
    """Moves the mean lengths towards those of the arrivals of a tick."""
    if own.start == own.stop:
        return
    first = state.output == 1.0
    gain = 1.0 if first else min(TICK_S / MEAN_S, 1.0)
    state.prompt += gain * (float(trace.prompt[own].mean()) - state.prompt)
    state.uncached += gain * (float(uncached[own].mean()) - state.uncached)
    state.output += gain * (float(trace.output[own].mean()) - state.output)


def _arrive(counters: Counters, trace: Trace, uncached: NDArray[np.int64], own: slice, weight: float) -> None:
    counters.arrivals += round((own.stop - own.start) * weight)
    counters.prompt_tokens += round(float(trace.prompt[own].sum()) * weight)
    counters.uncached_tokens += float(uncached[own].sum()) * weight


def _advance(
    state: _State, settings: Settings, uncached: NDArray[np.int64], weight: float, counters: Counters
) -> tuple[float, float, float]:
    """Works for a tick. Returns the wait of an arrival, how much its own prefill is stretched by decodes beside it, and
    the time of a token, all in seconds but the second."""
    profile = settings.profile
    context = state.prompt + state.output / 2
    each = state.decoding / state.ready
    beside = profile.sequence_s * each + profile.kv_s * each * context
    mixed, alone = profile.chunk_s + beside, profile.step_s + beside
    rate = profile.chunk_tokens / profile.prefill_tokens_s / mixed  # prefill seconds of a replica in a second
    state.backlog_s += float(uncached.sum()) * weight / profile.prefill_tokens_s
    state.queued += len(uncached) * weight
    places = max(state.ready * profile.held(state.prompt, state.output) - state.decoding, 0.0)
    can = min(state.ready * rate * TICK_S, state.backlog_s)
    began = min(state.queued * can / state.backlog_s if state.backlog_s else 0.0, places)
    done = state.backlog_s * began / state.queued if state.queued else 0.0
    busy = min(done / (state.ready * rate * TICK_S), 1.0)
    step = 1 / (busy / mixed + (1 - busy) / alone)
    ended = min(state.decoding * TICK_S / (state.output * step), state.decoding)
    wait = max(state.backlog_s - done, 0.0) / max(done / TICK_S if done < can else state.ready * rate, 1e-9)
    state.backlog_s -= done
    state.queued -= began
    state.decoding += began - ended
    counters.finished += round(ended)
    counters.output_tokens += round(ended * state.output)
    return wait, 1 / rate, step


def _mean_replica(state: _State, settings: Settings, step: float) -> MeanReplica:
    decoding, queued = state.decoding / state.ready, state.queued / state.ready
    return MeanReplica(
        slot=0,
        outstanding=round(decoding + queued),
        waiting=range(max(round(queued) - 1, 0)),
        prefilling=min(round(queued), 1),
        decoding=round(decoding),
        backlog_s=state.backlog_s / state.ready,
        prompt_tokens=round((decoding + queued) * state.prompt),
        kv_resident=decoding * (state.prompt + state.output / 2),
        kv_reserved=min(round(decoding * (state.prompt + state.output / 2)), settings.profile.kv_tokens),
        step_now_s=step,
    )
