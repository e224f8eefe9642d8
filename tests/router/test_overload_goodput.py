"""Under overload: as many answers in time as at the best load, no class starves, and tenants keep their share."""

from __future__ import annotations

import pytest

from engine.api import Priority
from router.config import AdmissionConfig, ClassAdmission
from tests.router.overload_simulation import Arrival, Mix, Simulation, percentile

CONFIG = AdmissionConfig(
    interactive=ClassAdmission(ttft_s=1.0),
    standard=ClassAdmission(ttft_s=4.0),
    batch=ClassAdmission(max_requests=64),
)
OBJECTIVE_S = {Priority.INTERACTIVE: 1.0, Priority.STANDARD: 4.0, Priority.BATCH: 60.0}
CAPACITY, SECONDS = 21.0, 60.0  # requests per second of this mix, about; seconds of each load


def mixed(times: float) -> list[Mix]:
    """``times`` the capacity, in classes and lengths that differ."""
    parts = zip("abc", Priority, (0.3, 0.5, 0.2), strict=True)
    return [Mix(tenant, priority, share * times * CAPACITY) for tenant, priority, share in parts]


def goodput(arrivals: list[Arrival]) -> float:
    """Answers per second whose first token was in time."""
    return sum(one.ttft_s is not None and one.ttft_s <= OBJECTIVE_S[one.priority] for one in arrivals) / SECONDS


@pytest.fixture(scope="module")
def overloaded() -> list[Arrival]:
    return Simulation(CONFIG).run(mixed(10.0), SECONDS)


def test_goodput_stays_flat_with_admission_and_falls_to_nothing_without(overloaded: list[Arrival]) -> None:
    best = max(goodput(Simulation(CONFIG).run(mixed(times), SECONDS)) for times in (0.8, 1.0, 1.2, 1.5, 2.0))

    assert goodput(overloaded) >= 0.95 * best
    assert goodput(Simulation(None).run(mixed(10.0), SECONDS)) < 0.1 * best


def test_interactive_requests_are_in_time_while_others_wait(overloaded: list[Arrival]) -> None:
    waits = [one.ttft_s for one in overloaded if one.priority is Priority.INTERACTIVE and one.ttft_s is not None]

    assert percentile(waits, 0.99) <= OBJECTIVE_S[Priority.INTERACTIVE]


def test_no_class_starves(overloaded: list[Arrival]) -> None:
    tokens = {
        each: sum(one.prompt + 2 * one.output for one in overloaded if one.ended and one.priority is each)
        for each in Priority
    }

    assert min(tokens.values()) > 0.05 * sum(tokens.values())


def test_what_was_admitted_is_answered(overloaded: list[Arrival]) -> None:
    assert all(one.ended for one in overloaded if one.refused is None)


def test_nothing_is_refused_below_capacity() -> None:
    assert not [one for one in Simulation(CONFIG).run(mixed(0.6), SECONDS) if one.refused]


def test_the_waits_that_refusals_ask_for_grow_with_the_demand(overloaded: list[Arrival]) -> None:
    waits = [one.refused.retry_after_s for one in overloaded if one.refused is not None]
    known = [wait for wait in waits if wait is not None]

    assert len(known) == len(waits)
    assert max(known) <= CONFIG.max_retry_s
    assert percentile(known, 0.5) > 10.0, "ten times the demand comes again over a longer time"


def test_a_tenant_that_sends_a_hundred_times_its_share_has_others_refused_for_no_reason_of_theirs() -> None:
    quiet = [Mix(f"quiet-{number}", Priority.STANDARD, 2.0) for number in range(4)]
    noisy = Mix("noisy", Priority.STANDARD, 200.0)
    arrivals = Simulation(CONFIG).run([*quiet, noisy], SECONDS)

    others = [one for one in arrivals if one.tenant != "noisy"]
    assert not [one for one in others if one.refused is not None]
    assert all(one.ttft_s is not None and one.ttft_s <= OBJECTIVE_S[Priority.STANDARD] for one in others)
