"""The counts of admitted requests: taken at once, given back once, however a request ends."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.api import Priority
from router.admission.admitted_requests import AdmittedRequests, Count, Prompts, Ticket
from router.admission.retry_schedule import RetrySchedule
from router.admission.start_rate import StartRate
from router.admission.wait_limit import LEAST, WaitLimit

STANDARD = Priority.STANDARD


class Rooms(RuleBasedStateMachine):
    """Requests come, start, end and are cancelled in any order, each of them also twice."""

    def __init__(self) -> None:
        super().__init__()
        self.admitted = AdmittedRequests()
        self.now = 0.0
        self.waiting: dict[Ticket, tuple[Priority, str, int, int]] = {}
        self.running: dict[Ticket, tuple[Priority, int]] = {}
        self.gone: list[Ticket] = []
        self.places: dict[tuple[Ticket, int], tuple[str, int]] = {}  # by prompt, also of those that wait no more

    @rule(
        priority=st.sampled_from(list(Priority)),
        tenant=st.sampled_from("abc"),
        requests=st.integers(1, 4),
        tokens=st.integers(0, 1000),
    )
    def take(self, priority: Priority, tenant: str, requests: int, tokens: int) -> None:
        ticket = self.admitted.take(priority, tenant, requests, tokens, self.now, tokens // 2, 1.0)
        self.waiting[ticket] = priority, tenant, requests, tokens

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        if self.waiting or self.running or self.gone:
            ticket = data.draw(st.sampled_from([*self.waiting, *self.running, *self.gone]))
            ticket.started(self.now)
            if (entry := self.waiting.pop(ticket, None)) is not None:
                self.running[ticket] = entry[0], entry[2]

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.waiting or self.running or self.gone:
            ticket = data.draw(st.sampled_from([*self.waiting, *self.running, *self.gone]))
            ticket.release(self.now)
            self.waiting.pop(ticket, None)
            self.running.pop(ticket, None)
            self.gone.append(ticket)

    @rule(data=st.data(), replica=st.sampled_from("xy"), tokens=st.integers(0, 500))
    def place(self, data: st.DataObject, replica: str, tokens: int) -> None:
        if self.waiting or self.running or self.gone:
            ticket = data.draw(st.sampled_from([*self.waiting, *self.running, *self.gone]))
            prompt = data.draw(st.integers(0, ticket.requests - 1))
            ticket.placed(prompt, replica, tokens)
            if ticket in self.waiting:
                self.places[ticket, prompt] = replica, tokens

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_counts_are_those_of_what_waits(self) -> None:
        assert self.admitted.total.requests == sum(requests for _, _, requests, _ in self.waiting.values())
        assert self.admitted.total.tokens == sum(tokens for _, _, _, tokens in self.waiting.values())
        for priority in Priority:
            own = [entry for entry in self.waiting.values() if entry[0] is priority]
            assert self.admitted.of(priority).requests == sum(entry[2] for entry in own)
            runs = sum(requests for each, requests in self.running.values() if each is priority)
            assert self.admitted.running[priority] == runs
            assert self.admitted.of(priority).prompt_tokens == sum(entry[3] // 2 for entry in own)
            for tenant in "abc":
                mine = [entry for entry in own if entry[1] == tenant]
                assert self.admitted.own(priority, tenant).tokens == sum(entry[3] for entry in mine)
                assert self.admitted.oldest_s(priority, tenant, self.now) >= 0.0
                ahead = self.admitted.ahead(priority, tenant, 10)
                assert sum(entry[3] for entry in mine) <= ahead <= self.admitted.backlog(priority)

    @invariant()
    def each_prompt_waits_in_one_place(self) -> None:
        for priority in Priority:
            waiting = {each: entry for each, entry in self.waiting.items() if entry[0] is priority}
            placed = {key: place for key, place in self.places.items() if key[0] in waiting}
            for replica in "xy":
                there = [tokens for name, tokens in placed.values() if name == replica]
                assert self.admitted.on(replica, priority) == Prompts(len(there), sum(there))
            unplaced = self.admitted.unplaced(priority)
            assert unplaced.count == sum(entry[2] for entry in waiting.values()) - len(placed)
            left = {each: entry[2] - sum(key[0] is each for key in placed) for each, entry in waiting.items()}
            assert unplaced.tokens == sum(entry[3] // 2 * left[each] // entry[2] for each, entry in waiting.items())

    @invariant()
    def nothing_is_left_of_what_has_gone(self) -> None:
        assert len(self.admitted.lines) == len({entry[:2] for entry in self.waiting.values()})
        rate = self.admitted.rate.tokens_per_s(self.now)
        assert rate is None or rate >= 0.0


TestRooms = Rooms.TestCase


def test_a_tenant_with_a_long_queue_is_before_another_only_with_as_much_as_that_one_has() -> None:
    admitted = AdmittedRequests()
    for _ in range(100):
        admitted.take(STANDARD, "noisy", 1, 50, 0.0)
    admitted.take(STANDARD, "quiet", 1, 30, 0.0)
    admitted.take(Priority.INTERACTIVE, "other", 1, 7, 0.0)
    admitted.take(Priority.BATCH, "other", 1, 1000, 0.0)

    assert admitted.ahead(STANDARD, "quiet", 30) == 7 + 30 + 60
    assert admitted.ahead(STANDARD, "noisy", 50) == 7 + 5000 + 30


def test_the_rate_is_that_of_a_queue_and_not_of_a_tier_that_waits_for_requests() -> None:
    rate, now = StartRate(), 0.0
    for _ in range(100):  # one request at a time
        rate.observe(now, 1)
        now += 0.1
        rate.observe(now, 0, STANDARD, 1, 100)
    assert rate.tokens_per_s(now) is None

    for _ in range(100):
        now += 0.1
        rate.observe(now, 20, STANDARD, 1, 100)
    assert rate.tokens_per_s(now) == pytest.approx(1000, rel=0.02)
    assert rate.tokens_per_s(now + 60) == pytest.approx(0, abs=150), "nothing has started for a minute"


@pytest.mark.parametrize("ran_before", [False, True])
def test_the_start_of_a_tier_at_zero_does_not_look_like_a_slow_tier(ran_before: bool) -> None:
    admitted, now = AdmittedRequests(), 0.0

    def run(tickets: list[Ticket], now: float) -> float:
        """Each starts 0.1 s after the one before, and another comes."""
        for ticket in tickets:
            now += 0.1
            ticket.started(now)
            admitted.take(STANDARD, "a", 1, 100, now, 100, 20.0).release(now)
        return now

    if ran_before:
        now = run([admitted.take(STANDARD, "a", 1, 100, now, 100, 20.0) for _ in range(60)], now) + 600
    waits = [admitted.take(STANDARD, "a", 1, 100, now, 100, 20.0, replicas=0) for _ in range(60)]
    waits.pop().release(now + 30)  # its client leaves during the start
    run(waits, now + 60)

    assert admitted.rate.tokens_per_s(now) == pytest.approx(1000, rel=0.05)
    assert admitted.limits[STANDARD].share >= WaitLimit().share


def test_a_rate_is_forgotten_when_there_has_been_no_queue_for_a_while() -> None:
    rate = StartRate()
    for step in range(100):
        rate.observe(step * 0.2, 20, STANDARD, 1, 100)
    rate.observe(20.0, 3, STANDARD, 1, 100)

    assert rate.tokens_per_s(25.0) == pytest.approx(500, rel=0.1)
    assert rate.tokens_per_s(31.0) is None, "a few requests at a time are no queue, and say no other rate"
    assert rate.share(STANDARD, 31.0) == 0.0
    for step in range(40):
        rate.observe(31.0 + step * 0.1, 20, STANDARD, 1, 100)
    assert rate.tokens_per_s(35.0) == pytest.approx(1000, rel=0.1)


def test_a_stall_counts_no_more_than_the_time_before_it_would() -> None:
    rate = StartRate()
    for step in range(200):
        rate.observe(step * 0.1, 20, STANDARD, 1, 100)
    for step in range(50):  # a minute in which nothing starts, and then five seconds as before
        rate.observe(80.0 + step * 0.1, 20, STANDARD, 1, 100)

    assert rate.tokens_per_s(85.0) == pytest.approx(500, rel=0.1), "half a life later, half of it is forgotten"


def test_the_share_of_a_class_includes_those_above_it() -> None:
    rate = StartRate()
    rate.observe(0.0, 20)
    for priority, tokens in zip(Priority, (60, 30, 10), strict=True):
        rate.observe(0.0, 20, priority, 1, tokens)

    assert [rate.share(priority, 0.0) for priority in Priority] == pytest.approx([0.6, 0.9, 1.0])


def test_a_tenant_has_had_little_that_has_less_than_its_equal_share_of_what_was_started() -> None:
    rate = StartRate()
    rate.observe(0.0, 20)
    for tenant, tokens in (("noisy", 900), ("one", 50), ("two", 50)):
        rate.observe(0.0, 20, STANDARD, 1, tokens, tenant)

    assert [rate.has_little(tenant) for tenant in ("noisy", "one", "two", "new")] == [False, True, True, True]


def test_a_class_that_is_refused_lacks_room_as_one_does_that_waits() -> None:
    admitted = AdmittedRequests()
    assert not admitted.lacks(STANDARD, 2.0, 10.0)
    admitted.take(STANDARD, "a", 1, 1, 10.0)
    assert not admitted.lacks(STANDARD, 2.0, 11.0)
    assert admitted.lacks(STANDARD, 2.0, 12.5)
    admitted.refused_at[Priority.BATCH] = 10.0
    assert admitted.lacks(Priority.BATCH, 2.0, 11.0)
    assert not admitted.lacks(Priority.BATCH, 2.0, 12.5)


def test_what_has_missed_its_objective_no_longer_says_how_long_others_wait() -> None:
    admitted = AdmittedRequests()
    admitted.take(STANDARD, "a", 1, 1, 0.0, 1, 5.0)
    admitted.take(STANDARD, "a", 1, 1, 4.0, 1, 5.0)

    assert admitted.oldest_s(STANDARD, "a", 4.5) == 4.5
    assert admitted.oldest_s(STANDARD, "a", 6.0) == 2.0


def test_a_miss_lowers_the_limit_once_per_objective() -> None:
    limit = WaitLimit()
    first = limit.share
    for now in (10.0, 10.1, 10.9):
        limit.observe(now, 2.0, 1.0)
    assert limit.share == pytest.approx(0.8 * first)
    limit.observe(11.1, 2.0, 1.0)
    assert limit.share == pytest.approx(max(0.64 * first, LEAST))
    for _ in range(10_000):
        limit.observe(12.0, 0.5, 1.0)
    assert limit.share == pytest.approx(0.9)


def test_a_request_that_was_late_from_the_start_says_nothing_of_predictions() -> None:
    room = AdmittedRequests()
    before = room.limits[STANDARD].share
    room.take(STANDARD, "a", 1, 9000, 0.0, 8000, 5.0, in_time=False).started(20.0)
    assert room.limits[STANDARD].share == before
    room.take(STANDARD, "a", 1, 9000, 0.0, 8000, 5.0).started(20.0)
    assert room.limits[STANDARD].share < before


def test_a_client_that_has_to_come_late_delays_no_other() -> None:
    schedule = RetrySchedule(60.0)
    assert schedule.place(0.0, 45.0, 0.1, "large") >= 45.0
    assert schedule.place(0.0, 2.0, 0.1, "small") < 3.0


def test_refused_clients_come_again_one_after_the_other_and_never_later_than_the_bound() -> None:
    schedule = RetrySchedule(60.0)
    waits = [schedule.place(0.0, 2.0, 0.5, f"request-{number}") for number in range(500)]

    assert waits[0] >= 2.0
    assert waits[20] > waits[0] + 5.0, "those before it come first"
    assert max(waits) <= 60.0
    assert len({round(wait, 2) for wait in waits[200:]}) > 100, "at the bound they are spread"
    assert schedule.place(1000.0, 0.0, 0.5, "later") < 2.0, "the schedule is empty by then"
    assert schedule.place(1000.0, float("inf"), 0.5, "never") <= 60.0


def test_nothing_waits_before_a_request_is_admitted() -> None:
    assert AdmittedRequests().of(STANDARD) == Count()


def test_a_long_prompt_that_is_computed_does_not_count_as_a_queue_for_others() -> None:
    admitted = AdmittedRequests()
    admitted.take(STANDARD, "a", 1, 40_000, 0.0, 40_000, 20.0, alone_s=6.0)
    assert admitted.oldest_s(STANDARD, "a", 5.0) == 0.0

    admitted.take(STANDARD, "a", 1, 100, 6.0, 100, 20.0, alone_s=0.1)
    assert admitted.oldest_s(STANDARD, "a", 9.0) == 3.0
    assert admitted.oldest_s(STANDARD, "a", 13.0) == 13.0  # by now others have delayed it


@pytest.mark.parametrize(("waiting", "known"), [(20, False), (80, True)])
def test_a_rate_is_learnt_only_while_all_replicas_have_a_queue(waiting: int, known: bool) -> None:
    rate = StartRate()
    rate.replicas = 40
    for step in range(100):
        rate.observe(step * 0.1, waiting, STANDARD, 1, 100)

    assert (rate.tokens_per_s(10.0) is not None) == known


def test_a_request_that_twice_as_many_passed_says_nothing_of_the_line() -> None:
    admitted = AdmittedRequests()
    first = admitted.take(STANDARD, "a", 1, 100, 0.0, 100, 2.0, replicas=4)
    held = admitted.take(STANDARD, "a", 1, 100, 0.0, 100, 2.0, replicas=4)
    first.started(0.5)
    for passed in range(2):
        assert admitted.oldest_s(STANDARD, "a", 1.5) == 1.5, passed
        admitted.take(STANDARD, "a", 1, 100, 0.5, 100, 2.0, replicas=4).started(1.0)
    assert held.passed
    assert admitted.oldest_s(STANDARD, "a", 1.5) == 0.0
    before = admitted.limits[STANDARD].share
    held.started(5.0)
    assert admitted.limits[STANDARD].share == before


def test_on_a_single_replica_a_request_that_was_passed_counts() -> None:
    admitted = AdmittedRequests()
    held = admitted.take(STANDARD, "a", 1, 100, 0.0, 100, 2.0)
    for _ in range(5):
        admitted.take(STANDARD, "a", 1, 100, 0.5, 100, 2.0).started(1.0)
    assert not held.passed
    assert admitted.oldest_s(STANDARD, "a", 1.5) == 1.5


def test_requests_that_need_no_engine_after_all_pass_nobody() -> None:
    admitted = AdmittedRequests()
    held = admitted.take(STANDARD, "a", 1, 100, 0.0, 100, 2.0, replicas=4)
    for _ in range(5):
        admitted.take(STANDARD, "a", 1, 100, 0.5, 100, 2.0, replicas=4).release(0.6)
    assert not held.passed
    assert admitted.oldest_s(STANDARD, "a", 1.5) == 1.5
