"""``SimulatedAdmission``: the product's ``Admission`` in front of a simulated tier, on the simulation's clock.

One router admits or refuses each request before it is placed. Its objective is the SLO. The admission does not see how
long an answer will be. It expects the mean length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.api import Priority
from load_tests.overload.simulation import VirtualClock
from load_tests.simulation.fleet import Fleet
from load_tests.simulation.placement import load_of
from load_tests.simulation.slo import Slo
from load_tests.simulation.trace import BLOCK_TOKENS
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
    """One object for each simulation. ``output_tokens`` is the mean length of answers."""

    def __init__(self, slo: Slo, output_tokens: float) -> None:
        objective = ClassAdmission(ttft_s=slo.ttft_s, ttft_s_per_1k_tokens=1000 * slo.ttft_s_per_token)
        config = AdmissionConfig(standard=objective)
        self._clock = VirtualClock()
        self._admission = Admission(config, self._clock, NoUsageMetrics())
        self._output_tokens = output_tokens
        self._places: dict[int, Place] = {}  # of requests that have not ended
        self._known: tuple[int, float] = (0, 0.0)  # number of ready replicas, and when the latest got ready
        self._replicas: frozenset[str] = frozenset()

    def admits(self, request: int, kind: int, prompt: int, fleet: Fleet, now: float, chain: Sequence[int] = ()) -> bool:
        """Returns whether a request of class ``kind``, whose prompt has the blocks ``chain``, is admitted, and takes
        its place if so."""
        self._clock.time = now
        cached = {slot: fleet.prefixes.matched(slot, chain) * BLOCK_TOKENS for slot in fleet.prefixes.holders(chain)}
        named = {str(slot): tokens for slot, tokens in cached.items()}
        facts = RequestFacts("", PRIORITIES[kind], 1, prompt, round(self._output_tokens), cached_tokens=named)
        snapshot = self._snapshot(fleet, now, cached)
        try:
            place = self._admission.enter(facts, TIER, [TIER], [snapshot], str(request))
        except AdmissionRefusedError:
            return False
        self._places[request] = place
        return True

    def placed(self, request: int, slot: int, uncached: int) -> None:
        """Records that a replica has a request, of which it has ``uncached`` prompt tokens to compute."""
        self._places[request].placed(0, str(slot), uncached)

    def first_token(self, request: int, now: float) -> None:
        """Gives back the room of a request in the queue."""
        self._clock.time = now
        self._places[request].started()

    def ended(self, request: int, now: float) -> None:
        """Gives back all that a request has."""
        self._clock.time = now
        self._places.pop(request).release()

    def _snapshot(self, fleet: Fleet, now: float, holders: Iterable[int]) -> TierSnapshot:
        slots = list(fleet.ready)
        if len(slots) > CANDIDATES:
            slots = fleet.two_cheapest()
        loads: dict[str, ReplicaLoad] = {}
        for slot in dict.fromkeys((*slots, *holders)):
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
