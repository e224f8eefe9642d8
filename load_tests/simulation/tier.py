"""``Tier``: what every policy knows of the simulated tier beforehand, and how many replicas it starts with."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from load_tests.simulation.load_test import COMFORT, load_test
from load_tests.simulation.profile import ReplicaProfile
from load_tests.simulation.simulation import Settings
from load_tests.simulation.slo import Slo
from load_tests.simulation.trace import Trace
from load_tests.simulation.workload import cached_tokens

START_S = 120.0  # of the trace, whose rate gives the replicas that serve when it starts


@dataclass(frozen=True, slots=True)
class Tier:
    """What an operator configures, or measures once. Lengths are means in tokens."""

    profile: ReplicaProfile
    slo: Slo
    replicas_min: int
    replicas_max: int
    cold_start_s: float
    prompt: float  # not in a prefix cache
    cached: float
    output: float
    capacity_rps: float  # of a replica within the SLO, by a load test
    ongoing: float  # requests at a replica that is comfortably loaded, by the same test

    @classmethod
    def of(cls, trace: Trace, settings: Settings) -> Tier:
        """Returns the tier of the settings, measured with requests of the trace."""
        cached = float(cached_tokens(trace).mean())
        tested = load_test(trace, settings)
        return cls(
            settings.profile,
            settings.slo,
            settings.replicas_min,
            settings.replicas_max,
            settings.cold_start_s,
            prompt=float(trace.prompt.mean()) - cached,
            cached=cached,
            output=float(trace.output.mean()),
            capacity_rps=tested.capacity_rps,
            ongoing=tested.ongoing,
        )

    def capacity_at(self, prompt: float, output: float) -> float:
        """Returns the capacity for other mean lengths: that of the load test, by the ratio of the profile's closed
        forms."""

        def closed(prompt: float, output: float) -> float:
            return self.profile.capacity_rps(prompt + self.cached, output, self.slo.itl_s, self.cached)

        return self.capacity_rps * closed(prompt, output) / closed(self.prompt, self.output)

    def start_replicas(self, trace: Trace, weight: float = 1.0) -> int:
        """Returns the replicas that ``weight`` times the rate at the start of the trace needs, comfortably loaded."""
        seconds = min(START_S, trace.duration)
        rate = weight * int(np.searchsorted(trace.arrival, seconds)) / seconds
        return min(max(ceil(rate / (COMFORT * self.capacity_rps)), self.replicas_min, 1), self.replicas_max)
