"""A tier that was slow and is quick again takes requests again, and what waits for no engine holds up no others."""

from __future__ import annotations

import asyncio

from engine.api import Priority
from load_tests.overload.simulation import VirtualClock
from router.admission.admission import LOOK_UP_S, Admission, Place
from router.admission.admission_decision import RequestFacts
from router.config.admission import AdmissionConfig
from router.ports.tier_backend import TierSnapshot
from router.ports.usage_metrics import NoUsageMetrics

READY = [TierSnapshot("fast", frozenset({"one"}))]
NONE = [TierSnapshot("fast", frozenset())]
FACTS = RequestFacts("acme", Priority.STANDARD, 1, 300, 200)


def entered(admission: Admission, loads: list[TierSnapshot], number: int) -> Place:
    return admission.enter(FACTS, "fast", ["fast"], loads, str(number))


def all_of(clock: VirtualClock, admission: Admission, loads: list[TierSnapshot], requests: int, wait_s: float) -> None:
    """``requests`` come at once, and get their first tokens at once after ``wait_s`` seconds."""
    places = [entered(admission, loads, number) for number in range(requests)]
    clock.time += wait_s
    for place in places:
        place.started()


def in_threes(clock: VirtualClock, admission: Admission, seconds: float) -> None:
    """Three at a time are served quickly, for ``seconds``. Raises AdmissionRefusedError."""
    end = clock.time + seconds
    while clock.time < end:
        all_of(clock, admission, READY, 3, 0.1)


def test_a_tier_that_has_stood_still_takes_requests_again() -> None:
    clock = VirtualClock()
    admission = Admission(AdmissionConfig(), clock, NoUsageMetrics())
    for _ in range(40):
        all_of(clock, admission, READY, 20, 0.2)
    places = [entered(admission, READY, number) for number in range(9)]
    clock.time += 60.0
    for place in places:
        place.started()

    clock.time += 11.0
    in_threes(clock, admission, 30.0)


def test_the_time_until_a_tier_has_a_replica_is_not_its_speed() -> None:
    clock = VirtualClock()
    admission = Admission(AdmissionConfig(), clock, NoUsageMetrics())
    all_of(clock, admission, NONE, 40, 600.0)

    in_threes(clock, admission, 30.0)


def test_a_request_that_waits_for_the_answer_to_an_identical_one_gives_its_room_back() -> None:
    async def run() -> list[int]:
        admission = Admission(AdmissionConfig(), VirtualClock(), NoUsageMetrics())
        room = admission.admitted["fast"]
        seen = []
        async with entered(admission, READY, 1) as place:
            with place.looking_up():
                seen.append(room.total.requests)
                await asyncio.sleep(2 * LOOK_UP_S)
                seen.append(room.total.requests)
            place.settle(needs_engine=True)
            seen.append(room.total.requests)
        return [*seen, room.total.requests]

    assert asyncio.run(run()) == [1, 0, 1, 0]
