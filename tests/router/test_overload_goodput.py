"""Under overload: as many answers in time as at the best load, no class starves, and tenants keep their share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.api import Priority
from load_tests.overload.server import router_config
from load_tests.overload.simulation import Arrival, Simulation
from load_tests.overload.traffic import CLASSES, mixed
from load_tests.overload.trial import Outcome, figures_of, percentile

CONFIG = router_config(admission=True).admission
INTERACTIVE, STANDARD, _ = CLASSES
CAPACITY, SECONDS = 6.5, 60.0  # requests per second of this mix that the simulated tier serves; seconds of each load


def offered(times: float, admission: bool = True) -> list[Arrival]:
    """What becomes of ``times`` the capacity, in classes and lengths that differ."""
    return Simulation(CONFIG if admission else None).run(list(mixed(times * CAPACITY, SECONDS, seed=7)))


def goodput(arrivals: list[Arrival]) -> float:
    return figures_of([one.outcome for one in arrivals], SECONDS).goodput


@pytest.fixture(scope="module")
def overloaded() -> list[Arrival]:
    return offered(10.0)


def test_goodput_stays_flat_with_admission_and_falls_to_nothing_without(overloaded: list[Arrival]) -> None:
    best = max(goodput(offered(times)) for times in (0.8, 1.0, 1.2, 1.5, 2.0))

    assert goodput(offered(5.0)) >= 0.95 * best
    assert goodput(overloaded) >= 0.95 * best
    assert goodput(offered(10.0, admission=False)) < 0.1 * best


def test_interactive_requests_are_in_time_while_others_wait(overloaded: list[Arrival]) -> None:
    wait = figures_of([one.outcome for one in overloaded], SECONDS).ttft_p99_by_class["interactive"]

    assert wait is not None
    assert wait <= INTERACTIVE.objective_s


def test_no_class_starves(overloaded: list[Arrival]) -> None:
    tokens = {
        each: sum(
            one.offered.words + 2 * one.offered.max_tokens for one in overloaded if one.ended and one.priority is each
        )
        for each in Priority
    }

    assert min(tokens.values()) > 0.03 * sum(tokens.values())


def test_what_was_admitted_is_answered(overloaded: list[Arrival]) -> None:
    assert all(one.ended for one in overloaded if one.refused is None)


def test_nothing_is_refused_below_capacity() -> None:
    assert not [one for one in offered(0.6) if one.refused]


def test_the_waits_that_refusals_ask_for_grow_with_the_demand(overloaded: list[Arrival]) -> None:
    waits = [one.refused.retry_after_s for one in overloaded if one.refused is not None]
    known = [wait for wait in waits if wait is not None]

    assert len(known) == len(waits)
    assert max(known) <= CONFIG.max_retry_s
    assert (percentile(known, 0.5) or 0.0) > 10.0, "ten times the demand comes again over a longer time"


def test_a_tenant_that_sends_a_hundred_times_its_share_has_no_other_one_of_its_class_refused_or_late() -> None:
    share = CAPACITY / 8
    quiet = list(mixed(3 * share, SECONDS, 7))
    noisy = list(mixed(100 * share, SECONDS, 8, ("noisy",)))
    both = [replace(one, traffic=STANDARD) for one in sorted([*quiet, *noisy], key=lambda one: one.at)]
    arrivals = Simulation(CONFIG).run(both)

    others = [one.outcome for one in arrivals if one.offered.tenant != "noisy"]
    assert sum(one.refused_s is not None for one in others) <= 0.02 * len(others)
    assert sum(one.good for one in others) >= 0.98 * len(others)


@pytest.mark.parametrize("seed", [3, 21])
def test_others_hardly_notice_a_tenant_that_sends_a_hundred_times_its_share_of_all_classes(seed: int) -> None:
    share = CAPACITY / 8
    quiet = list(mixed(3 * share, SECONDS, seed))
    noisy = list(mixed(100 * share, SECONDS, seed + 1, ("noisy",)))
    alone = Simulation(CONFIG).run(quiet)
    beside = Simulation(CONFIG).run(sorted([*quiet, *noisy], key=lambda one: one.at))

    others = [one.outcome for one in beside if one.offered.tenant != "noisy"]
    assert not [one for one in others if one.refused_s is not None]
    assert p99([one.outcome for one in alone]) * 1.3 >= p99(others)
    served = sum(one.outcome.good for one in beside if one.offered.tenant == "noisy") / SECONDS
    assert served > 0.5 * CAPACITY, "the rest is for the tenant that asks for it"


def p99(outcomes: list[Outcome]) -> float:
    return percentile([one.ttft_s for one in outcomes if one.ttft_s is not None], 0.99) or 0.0
