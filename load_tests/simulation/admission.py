"""``SimulatedAdmission``: the product's ``Admission`` in front of a simulated tier, on the simulation's clock.

One router admits or refuses each request before it is placed. The product has one TTFT objective for all prompt
lengths; here it is the SLO of a prompt of mean length. The admission does not see how long an answer will be. It
expects the mean length.
"""

from __future__ import annotations

import numpy as np

from engine.api import Priority
from load_tests.overload.simulation import VirtualClock
from load_tests.simulation.fleet import Fleet
from load_tests.simulation.placement import load_of
from load_tests.simulation.slo import Slo
from router.admission.admission import Admission, Place
from router.admission.admission_decision import RequestFacts
from router.config.admission import AdmissionConfig, ClassAdmission
from router.errors import AdmissionRefusedError
from router.ports.replica_load import ReplicaLoad
from router.ports.tier_backend import TierSnapshot
from router.ports.usage_metrics import NoUsageMetrics

TIER = "simulated"
PRIORITIES = (Priority.STANDARD, Priority.BATCH)
"""The classes by their numbers in a trace."""

CANDIDATES = 2
"""Replicas whose loads the admission sees: those with the least prefill work, one of which would be the quickest."""


class SimulatedAdmission:
    """One object for each simulation. The lengths are means, in tokens."""

    def __init__(self, slo: Slo, prompt_tokens: float, output_tokens: float) -> None:
        objective_s = slo.ttft_s + slo.ttft_s_per_token * prompt_tokens
        config = AdmissionConfig(standard=ClassAdmission(ttft_s=objective_s))
        self._clock = VirtualClock()
        self._admission = Admission(config, self._clock, NoUsageMetrics())
        self._output_tokens = output_tokens
        self._places: dict[int, Place] = {}  # of requests that have not ended
        self._known: tuple[int, float] = (0, 0.0)  # number of ready replicas, and when the latest got ready
        self._replicas: frozenset[str] = frozenset()

    def admits(self, request: int, kind: int, prompt: int, fleet: Fleet, now: float) -> bool:
        """Returns whether a request of class ``kind`` is admitted, and takes its place if so."""
        self._clock.time = now
        facts = RequestFacts("", PRIORITIES[kind], 1, prompt, round(self._output_tokens))
        try:
            place = self._admission.enter(facts, TIER, [TIER], [self._snapshot(fleet, now)], str(request))
        except AdmissionRefusedError:
            return False
        self._places[request] = place
        return True

    def first_token(self, request: int, now: float) -> None:
        """Gives back the room of a request in the queue."""
        self._clock.time = now
        self._places[request].started()

    def ended(self, request: int, now: float) -> None:
        """Gives back all that a request has."""
        self._clock.time = now
        self._places.pop(request).release()

    def _snapshot(self, fleet: Fleet, now: float) -> TierSnapshot:
        slots = list(fleet.ready)
        if len(slots) > CANDIDATES:
            slots = np.argpartition(fleet.used_load, CANDIDATES)[:CANDIDATES].tolist()
        loads: dict[str, ReplicaLoad] = {}
        for slot in slots:
            replica = fleet.replica(slot)
            replica.advance(now)
            loads[str(slot)] = load_of(replica, self._output_tokens)
        waiting = sum(load.waiting for load in loads.values())
        return TierSnapshot(TIER, self._names(fleet), waiting=waiting, loads=loads)

    def _names(self, fleet: Fleet) -> frozenset[str]:
        """Returns the names of the ready replicas, which are made anew only when they change."""
        known = len(fleet.ready), max(fleet.ready.values(), default=0.0)
        if known != self._known or len(self._replicas) != known[0]:
            self._known, self._replicas = known, frozenset(map(str, fleet.ready))
        return self._replicas
