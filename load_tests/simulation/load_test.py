"""A load test of a few simulated replicas: what an operator measures before setting the targets of an autoscaler."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from load_tests.simulation.measures import measure
from load_tests.simulation.policies.fixed import FixedPolicy
from load_tests.simulation.simulation import Outcome, Settings, Simulation
from load_tests.simulation.trace import Trace, first
from load_tests.simulation.workload import cached_tokens

MAX_REQUESTS = 1_500  # of a trial
REPLICAS = 4  # one alone holds fewer long prompts than its share of several
BISECTIONS = 6
KEPT = 0.99
COMFORT = 0.8  # part of the capacity at which ongoing requests are counted


@dataclass(frozen=True, slots=True)
class LoadTest:
    """Figures of one of REPLICAS replicas.

    ``capacity_rps`` is the highest rate of Poisson arrivals at which KEPT of the requests keep the objectives.
    ``ongoing`` is the mean number of its requests at COMFORT of that rate, at least 1.
    """

    capacity_rps: float
    ongoing: float


def load_test(trace: Trace, settings: Settings) -> LoadTest:
    """Tests REPLICAS replicas with the first requests of ``trace``, in their order, at several rates."""
    sample = first(trace, MAX_REQUESTS)
    cached = float(cached_tokens(sample).mean())
    prompt, output = float(sample.prompt.mean()), float(sample.output.mean())
    bound = settings.profile.capacity_rps(prompt, output, settings.slo.itl_s, cached)
    low, high = 0.0, bound
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        kept = measure(_trial(sample, middle, settings)).attainment >= KEPT
        low, high = (middle, high) if kept else (low, middle)
    # Long prompts may miss the objectives on an idle replica too: then half of what it can do at all counts.
    capacity = low or bound / 2
    outcome = _trial(sample, COMFORT * capacity, settings)
    times = outcome.end - outcome.trace.arrival
    ongoing = COMFORT * capacity * float(np.nanmean(times)) if np.isfinite(times).any() else 1.0
    return LoadTest(capacity, max(ongoing, 1.0))


def _trial(sample: Trace, rate: float, settings: Settings) -> Outcome:
    random = np.random.default_rng([settings.seed, 5])
    arrival = np.cumsum(random.exponential(1 / (REPLICAS * rate), len(sample)))
    trial = replace(sample, arrival=arrival, duration=float(arrival[-1]) + 1.0, priority=None)
    fixed = replace(settings, replicas_start=REPLICAS, replicas_max=REPLICAS, failures_per_hour=0.0)
    return Simulation(trial, FixedPolicy([(0.0, REPLICAS)]), fixed).run()
