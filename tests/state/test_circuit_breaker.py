"""The circuit breaker: its table of states."""

from __future__ import annotations

import pytest

from cluster.state.circuit_breaker import BreakerPolicy, BreakerState, CircuitBreaker

POLICY = BreakerPolicy(max_faults=2, open_s=1.0, max_open_s=3.0)
CLOSED = CircuitBreaker(POLICY)
OPEN = CLOSED.fault(10.0).fault(10.0)
HALF_OPEN, _ = OPEN.ask(11.0)


@pytest.mark.parametrize(
    ("before", "now_s", "after", "allowed"),
    [
        (CLOSED, 0.0, BreakerState.CLOSED, True),
        (OPEN, 10.9, BreakerState.OPEN, False),
        (OPEN, 11.0, BreakerState.HALF_OPEN, True),
        (HALF_OPEN, 99.0, BreakerState.HALF_OPEN, False),
    ],
)
def test_asking(before: CircuitBreaker, now_s: float, after: BreakerState, allowed: bool) -> None:
    breaker, answer = before.ask(now_s)

    assert (breaker.state, answer) == (after, allowed)


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        (CLOSED, "success", BreakerState.CLOSED),
        (CLOSED, "fault", BreakerState.CLOSED),
        (CLOSED.fault(0.0), "fault", BreakerState.OPEN),
        (CLOSED.fault(0.0), "abandoned", BreakerState.CLOSED),
        (OPEN, "success", BreakerState.OPEN),
        (OPEN, "fault", BreakerState.OPEN),
        (OPEN, "abandoned", BreakerState.OPEN),
        (HALF_OPEN, "success", BreakerState.CLOSED),
        (HALF_OPEN, "fault", BreakerState.OPEN),
        (HALF_OPEN, "abandoned", BreakerState.OPEN),
    ],
)
def test_events(before: CircuitBreaker, event: str, after: BreakerState) -> None:
    events = {
        "success": before.success,
        "fault": lambda: before.fault(20.0),
        "abandoned": lambda: before.abandoned(20.0),
    }

    assert events[event]().state is after


def test_a_success_between_faults_starts_the_count_again() -> None:
    assert CLOSED.fault(0.0).success().fault(0.0).state is BreakerState.CLOSED


def test_each_failed_probe_doubles_the_pause_up_to_the_longest() -> None:
    breaker, pauses, now_s = OPEN, [], 11.0
    for _ in range(4):
        breaker, _ = breaker.ask(now_s)
        breaker = breaker.fault(now_s)
        pauses.append(breaker.retry_at_s - now_s)
        now_s = breaker.retry_at_s

    assert pauses == [2.0, 3.0, 3.0, 3.0]
    assert breaker.ask(now_s)[0].success() == CLOSED


def test_an_abandoned_probe_leaves_the_next_call_to_be_one() -> None:
    assert HALF_OPEN.abandoned(20.0).ask(20.0)[1]
