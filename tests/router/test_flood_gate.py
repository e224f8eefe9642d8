"""Which requests of a flood are looked at, and that only those of a flood are turned away."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.api import Priority
from load_tests.overload.simulation import VirtualClock
from router.admission.admission import Admission, Place
from router.admission.admission_decision import RequestFacts
from router.admission.flood_gate import (
    LOOKS_PER_S,
    LOOKS_PER_SERVED,
    MOST_LOOKS,
    MOST_SENDERS,
    FloodGate,
)
from router.config.admission import AdmissionConfig, ClassAdmission
from router.errors import AdmissionRefusedError
from router.ports.tier_backend import TierSnapshot
from router.ports.usage_metrics import NoUsageMetrics

SENDERS = [("acme", "a"), ("acme", "b"), ("other", "a")]


class Flood(RuleBasedStateMachine):
    """Senders ask in any order; each request that is looked at is served or refused."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: FloodGate[int] = FloodGate()
        self.now = 0.0
        self.latest: dict[tuple[str, str], int] = {}
        self.since: dict[tuple[str, str], float] = {}  # the first refusal
        self.looks = dict.fromkeys(SENDERS, 0)  # since then
        self.served = dict.fromkeys(SENDERS, 0)

    @rule(sender=st.sampled_from(SENDERS), serve=st.booleans(), number=st.integers())
    def ask(self, sender: tuple[str, str], serve: bool, number: int) -> None:
        if not self.gate.look(sender, self.now):
            assert sender in self.latest, "none is turned away that was never refused"
            return
        self.looks[sender] += sender in self.latest
        if serve:
            self.gate.served(sender)
            self.served[sender] += sender in self.latest
        else:
            self.gate.refused(sender, number, self.now)
            self.latest[sender] = number
            self.since.setdefault(sender, self.now)

    @rule(sender=st.sampled_from(SENDERS))
    def flood(self, sender: tuple[str, str]) -> None:
        for _ in range(50):
            self.ask(sender, serve=False, number=0)

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(sender=st.sampled_from(SENDERS))
    def a_second_is_enough_for_another_look(self, sender: tuple[str, str]) -> None:
        self.now += 1.0
        assert self.gate.look(sender, self.now)
        self.looks[sender] += sender in self.latest

    @invariant()
    def looks_are_bounded_by_the_time_and_by_what_is_served(self) -> None:
        for sender, since in self.since.items():
            most = MOST_LOOKS + LOOKS_PER_S * (self.now - since) + LOOKS_PER_SERVED * self.served[sender]
            assert self.looks[sender] <= most + 1e-6
            assert self.gate.latest(sender) == self.latest[sender]


TestFlood = Flood.TestCase


def test_a_sender_of_whose_requests_more_than_one_in_four_is_served_is_never_turned_away() -> None:
    gate: FloodGate[None] = FloodGate()
    for number in range(1000):
        assert gate.look(("acme", "a"), 0.0), number
        if number % 3:
            gate.refused(("acme", "a"), None, 0.0)
        else:
            gate.served(("acme", "a"))


def test_a_bounded_number_of_senders_is_remembered() -> None:
    gate: FloodGate[None] = FloodGate()
    for number in range(2 * MOST_SENDERS):
        gate.refused(("acme", str(number)), None, 0.0)

    assert len(gate) == MOST_SENDERS
    assert gate.latest(("acme", "0")) is None


class Overloaded:
    """A tier that starts one standard request in 50 ms, behind a router's admission."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        config = AdmissionConfig(standard=ClassAdmission(ttft_s=4.0, max_requests=8))
        self.admission = Admission(config, self.clock, NoUsageMetrics())
        self.places: list[Place] = []
        self.waits: list[float] = []  # that refusals ask for, in seconds
        self.found: dict[str, list[str]] = {}  # by key: "admitted", or the reason of the refusal

    def ask(self, tenant: str, key: str) -> None:
        found = self.found.setdefault(key, [])
        try:
            self.admission.turn_away(tenant, key, "1")
            facts = RequestFacts(tenant, Priority.STANDARD, 1, 50, 50, key_id=key)
            tier = TierSnapshot("fast", frozenset({"one"}))
            self.places.append(self.admission.enter(facts, "fast", ["fast"], [tier], "1"))
        except AdmissionRefusedError as error:
            found.append((error.refused or "").split(";")[0].removeprefix("reason="))
            self.waits.append(error.retry_after_s or 0.0)
        else:
            found.append("admitted")

    def run(self, seconds: int, asking: dict[tuple[str, str], int]) -> None:
        """``asking``: requests in each 50 ms, by tenant and key."""
        for _ in range(20 * seconds):
            for (tenant, key), requests in asking.items():
                for _ in range(requests):
                    self.ask(tenant, key)
            self.clock.time += 0.05
            if self.places:
                place = self.places.pop(0)
                place.started()
                place.release()


def test_a_flood_is_mostly_turned_away_and_no_other_key_is() -> None:
    tier = Overloaded()
    tier.run(20, {("noisy", "flood"): 40, ("quiet", "q"): 0})
    tier.found.clear()
    for _ in range(20):
        tier.run(1, {("noisy", "flood"): 40})
        tier.ask("quiet", "q")
        tier.ask("noisy", "calm")

    flood = tier.found["flood"]
    assert len(flood) == 20 * 20 * 40
    assert flood.count("tenant_share") / len(flood) > 0.7
    assert flood.count("admitted") == pytest.approx(20 * 20, rel=0.15), "as many as the tier starts"
    assert "tenant_share" not in tier.found["q"] + tier.found["calm"]
    assert tier.found["q"] == ["admitted"] * 20
    assert min(tier.waits) >= 1.0


def test_nobody_is_turned_away_where_no_other_tenant_suffers() -> None:
    tier = Overloaded()
    tier.run(5, {("noisy", "flood"): 40})

    assert "tenant_share" not in tier.found["flood"]
    assert "queue_requests" in tier.found["flood"]


def test_a_flood_that_has_ended_is_looked_at_again() -> None:
    tier = Overloaded()
    tier.ask("quiet", "q")
    tier.run(5, {("noisy", "flood"): 40})
    tier.ask("quiet", "q")
    assert tier.found["flood"].count("tenant_share") > 1000
    tier.run(3, {})
    tier.found.clear()
    tier.run(5, {("noisy", "flood"): 1})

    assert "tenant_share" not in tier.found["flood"]


def test_turned_away_requests_are_demand_that_autoscaling_hears_of() -> None:
    tier = Overloaded()
    tier.ask("quiet", "q")
    tier.run(5, {("noisy", "flood"): 40})

    refused = len(tier.found["flood"]) - tier.found["flood"].count("admitted")
    assert tier.admission.take_refusals("fast") == (0, refused, 0)
