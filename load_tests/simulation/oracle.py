"""The oracle: the capacity profile with the least GPU-hours that a search finds, knowing the whole trace.

Profiles follow the work that arrives, smoothed, times a headroom; the least headroom that keeps the objectives is
found by bisection with the simulator itself as the judge, for several widths of smoothing. Then stretches of the best
profile are lowered by one replica, longest first, as long as the objectives are kept. Replicas are started a cold start
ahead, and kept over dips that are shorter. A better profile may exist: the result is an upper bound of the optimum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from load_tests.simulation.measures import Measures, measure
from load_tests.simulation.policies.fixed import FixedPolicy
from load_tests.simulation.simulation import Outcome, Settings, Simulation
from load_tests.simulation.trace import Trace
from load_tests.simulation.workload import busy_replicas

SLOT_S = 10.0
WIDTHS_S = (60.0, 240.0)  # of smoothing
BISECTIONS = 6
MIN_HEADROOM, MAX_HEADROOM = 0.6, 8.0
MAX_RUNS, MIN_RUNS = 60, 8
REQUESTS_PER_SEARCH = 2_000_000  # simulated in one search, within these numbers of runs


@dataclass(slots=True)
class Best:
    """The best profile so far: targets by slot of SLOT_S seconds."""

    targets: NDArray[np.int64]
    outcome: Outcome
    measures: Measures


class OracleSearch:
    """One search. ``attainment`` is the part of interactive requests that must keep the objectives."""

    def __init__(
        self,
        trace: Trace,
        settings: Settings,
        attainment: float = 0.99,
        progress: Callable[[int, int], None] | None = None,
        runs: int | None = None,
    ) -> None:
        self._trace = trace
        # Crashes are not the oracle's to foresee, and its starts are never stuck.
        self._settings = replace(settings, failures_per_hour=0.0, stuck_share=0.0)
        self._attainment = attainment
        interactive = len(trace) if trace.priority is None else int((trace.priority == 0).sum())
        self._max_late = int((1 - attainment) * interactive)
        self._progress = progress
        self._runs_left = runs or min(max(REQUESTS_PER_SEARCH // len(trace), MIN_RUNS), MAX_RUNS)
        self._runs = self._runs_left
        self.best: Best | None = None

    def run(self) -> Best | None:
        """Returns the best profile; None if no profile within the bounds keeps the objectives."""
        busy = busy_replicas(self._trace, self._settings.profile, SLOT_S)
        widths = WIDTHS_S if self._runs_left > len(WIDTHS_S) * (BISECTIONS + 1) else WIDTHS_S[:1]
        for width in widths:
            self._bisect(_smoothed(busy, max(round(width / SLOT_S), 1)))
        self._trim()
        return self.best

    def _bisect(self, smooth: NDArray[np.float64]) -> None:
        """Finds the least headroom for a smoothed profile. The first tries double the bound until one holds."""
        low, high = MIN_HEADROOM, 2.0
        while not self._try(self._targets(high * smooth)):
            low, high = high, 2 * high
            if low >= MAX_HEADROOM or not self._runs_left:
                return
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._try(self._targets(middle * smooth)) else (middle, high)

    def _trim(self) -> None:
        """Lowers stretches of the best profile, longest first, until none can be lowered or the runs are used up."""
        refused: set[tuple[int, int, int]] = set()
        while self._runs_left and self.best is not None:
            targets = self.best.targets
            least = self._settings.replicas_min
            left = [each for each in _stretches(targets) if each not in refused and each[2] > least]
            if not left:
                return
            begin, end, count = stretch = left[0]
            lowered = targets.copy()
            lowered[begin:end] = count - 1
            if not self._try(lowered):
                refused.add(stretch)

    def _targets(self, wanted: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.clip(np.ceil(wanted), self._settings.replicas_min, self._settings.replicas_max).astype(np.int64)

    def _try(self, targets: NDArray[np.int64]) -> bool:
        """Runs a profile, keeps it if it is the best so far, and returns whether it keeps the objectives."""
        if not self._runs_left:
            return False
        self._runs_left -= 1
        if self._progress is not None:
            self._progress(self._runs - self._runs_left, self._runs)
        steps = ahead(targets, self._settings.cold_start_s * (1 + self._settings.cold_start_spread))
        settings = replace(self._settings, replicas_start=steps[0][1])
        policy = FixedPolicy(steps, "oracle", interval_s=SLOT_S)
        outcome = Simulation(self._trace, policy, settings, max_late=self._max_late).run()
        measures = measure(outcome)
        if measures.attainment < self._attainment:
            return False
        if self.best is None or measures.gpu_hours < self.best.measures.gpu_hours:
            self.best = Best(targets, outcome, measures)
        return True


def at_once(trace: Trace, settings: Settings, capacity_rps: float) -> FixedPolicy:
    """Returns the policy that knows no future and needs no time to see the load: replicas are ordered at the instant at
    which the load needs them, and serve a cold start later. What it has late, an unforeseen rise costs without spare
    replicas. ``capacity_rps`` is what a replica serves within the objectives."""
    busy = _smoothed(busy_replicas(trace, settings.profile, SLOT_S), round(WIDTHS_S[0] / SLOT_S))
    mean = len(trace) / trace.duration / capacity_rps
    targets = np.maximum(np.ceil(busy / busy.mean() * mean), settings.replicas_min).astype(np.int64)
    return FixedPolicy(ahead(targets, 0.0), "at once", SLOT_S)


def ahead(targets: NDArray[np.int64], cold_start_s: float) -> list[tuple[float, int]]:
    """Returns the steps that have ``targets`` replicas ready in each slot: the most of the slots that a cold start
    reaches."""
    reach = int(np.ceil(cold_start_s / SLOT_S)) + 1
    padded = np.concatenate([targets, np.full(reach, targets[-1])])
    early = np.lib.stride_tricks.sliding_window_view(padded, reach)[: len(targets)].max(axis=1)
    changes = [0, *(place for place, (a, b) in enumerate(pairwise(early.tolist()), start=1) if a != b)]
    return [(place * SLOT_S, int(early[place])) for place in changes]


def _smoothed(values: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
    """The centred moving average; at the ends, of what there is."""
    window = np.ones(min(slots, len(values)))
    weight = np.convolve(np.ones_like(values), window, "same")
    result: NDArray[np.float64] = np.convolve(values, window, "same") / weight
    return result


def _stretches(targets: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """The runs of equal targets as (begin, end, target), longest first. One of more than a sixth of the profile is
    also in halves."""
    borders = [0, *(np.flatnonzero(np.diff(targets)) + 1).tolist(), len(targets)]
    runs = [(begin, end, int(targets[begin])) for begin, end in pairwise(borders)]
    halves = [
        half
        for begin, end, count in runs
        if end - begin > max(len(targets) // 6, 1)
        for half in ((begin, (begin + end) // 2, count), ((begin + end) // 2, end, count))
    ]
    return sorted(runs + halves, key=lambda run: (run[0] - run[1], run[0]))
