"""Identical requests share one generation: the table of states, and the flights of several routers on one store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.cache.flight_states import (
    ASKED,
    MAX_PROMOTIONS,
    TRANSITIONS,
    Assignment,
    Flight,
    FlightEvent,
    FlightRole,
    FlightState,
    IllegalFlightError,
)
from router.cache.single_flight import Joined, SingleFlight
from router.memory_entry_store import MemoryEntryStore
from router.ports.clock import SystemClock
from router.ports.state_store import StateUnavailableError
from tests.state.cached import ROOM, entry, key
from tests.state.clock import VirtualClock

ANSWERS = (FlightEvent.FOUND, FlightEvent.GRANTED, FlightEvent.REFUSED, FlightEvent.UNSHARED, FlightEvent.UNAVAILABLE)


@pytest.mark.parametrize("state", FlightState)
@pytest.mark.parametrize("event", FlightEvent)
def test_a_transition_that_is_not_in_the_table_raises_and_changes_nothing(
    state: FlightState, event: FlightEvent
) -> None:
    flight = Flight()
    flight.join()
    flight.state = state
    if (state, event) in TRANSITIONS:
        flight._step(event)
        assert flight.state is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalFlightError):
            flight._step(event)
        assert flight.state is state
        assert flight.waiting == (0,)


class FlightMachine(RuleBasedStateMachine):
    """Any course of events: each request gets one role, and one leads at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.flight = Flight()
        self.waiting: set[int] = {self.flight.join()}
        self.roles: dict[int, FlightRole] = {}
        self.leaders: list[int] = []

    def take(self, assigned: Sequence[Assignment]) -> None:
        for member, role in assigned:
            assert member in self.waiting, "a request that waits, once"
            self.waiting.remove(member)
            self.roles[member] = role
            if role is FlightRole.LEAD:
                self.leaders.append(member)

    @precondition(lambda self: self.flight.state is not FlightState.SETTLED)
    @rule()
    def join(self) -> None:
        self.waiting.add(self.flight.join())

    @precondition(lambda self: self.flight.state in ASKED)
    @rule(event=st.sampled_from(ANSWERS))
    def asked(self, event: FlightEvent) -> None:
        self.take(self.flight.asked(event))

    @precondition(lambda self: self.flight.state is FlightState.LEADING)
    @rule(how=st.sampled_from(("answered", "unshared", "failed", "failed", "failed")))
    def ends(self, how: str) -> None:
        before = self.flight.leader
        self.take(getattr(self.flight, how)())
        assert self.flight.leader != before

    @precondition(lambda self: bool(self.waiting))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(sorted(self.waiting)))
        others = self.waiting - {member}
        self.flight.leave(member)
        self.waiting = others

    @precondition(lambda self: self.flight.state is FlightState.SETTLED)
    @rule()
    def settled(self) -> None:
        with pytest.raises(IllegalFlightError):
            self.flight.join()

    @invariant()
    def holds(self) -> None:
        assert set(self.flight.waiting) == self.waiting
        assert len(self.leaders) <= 1 + MAX_PROMOTIONS
        assert (self.flight.leader is not None) == (self.flight.state is FlightState.LEADING)
        if self.flight.state is FlightState.SETTLED:
            assert not self.waiting
        if self.flight.state in ASKED:
            assert self.waiting


FlightMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestFlight = FlightMachine.TestCase


def flights(store: MemoryEntryStore, count: int = 1, lease_s: float = 5, max_wait_s: float = 5) -> list[SingleFlight]:
    return [SingleFlight(store, lease_s, max_wait_s) for _ in range(count)]


async def store_of(flight: SingleFlight, store: MemoryEntryStore) -> None:
    """What a leader does with its answer."""
    flight.answered("acme", key(1), entry(1))
    assert await store.put(entry(1), ROOM, flight.owner("acme", key(1)))
    flight.forget("acme", key(1))


async def led(tasks: Sequence[asyncio.Task[Joined]]) -> asyncio.Task[Joined]:
    """The one of ``tasks`` that is to lead."""
    for _ in range(500):
        for task in tasks:
            if task.done() and not task.cancelled() and task.result().role is FlightRole.LEAD:
                return task
        await asyncio.sleep(0.005)
    raise AssertionError("none leads")


async def test_requests_of_two_routers_wait_for_one_answer() -> None:
    store = MemoryEntryStore(VirtualClock())
    one, two = flights(store, 2)
    tasks = [asyncio.create_task(each.join("acme", key(1))) for each in (one, two) for _ in range(8)]
    leader = await led(tasks)
    assert tasks.index(leader) == 0
    await asyncio.sleep(0.05)
    assert sum(task.done() for task in tasks) == 1
    await store_of(one, store)
    joined = [await task for task in tasks if task is not leader]
    assert {(each.role, each.entry) for each in joined} == {(FlightRole.SHARE, entry(1))}
    assert not one._groups
    assert not two._groups


async def test_other_keys_and_tenants_do_not_wait() -> None:
    (flight,) = flights(MemoryEntryStore(VirtualClock()))
    joined = await asyncio.gather(*(flight.join(tenant, key(n)) for tenant in ("acme", "other") for n in range(3)))
    assert [each.role for each in joined] == [FlightRole.LEAD] * 6


async def test_a_leader_that_fails_is_followed_by_one_request_and_after_some_all_go_alone() -> None:
    (flight,) = flights(MemoryEntryStore(VirtualClock()))
    tasks = [asyncio.create_task(flight.join("acme", key(1))) for _ in range(6)]
    for count in range(1, 2 + MAX_PROMOTIONS):
        await asyncio.sleep(0.01)
        assert [task.result().role for task in tasks if task.done()] == [FlightRole.LEAD] * count
        flight.failed("acme", key(1))
    joined = await asyncio.gather(*tasks)
    assert [each.role for each in joined[1 + MAX_PROMOTIONS :]] == [FlightRole.ALONE] * (5 - MAX_PROMOTIONS)
    assert not flight._groups


async def test_a_request_whose_client_leaves_harms_no_other() -> None:
    store = MemoryEntryStore(VirtualClock())
    (flight,) = flights(store)
    tasks = [asyncio.create_task(flight.join("acme", key(1))) for _ in range(6)]
    await led(tasks)
    for task in tasks[1:3]:
        task.cancel()
    await asyncio.sleep(0.01)
    await store_of(flight, store)
    assert {(await task).role for task in tasks[3:]} == {FlightRole.SHARE}


async def test_all_that_wait_may_leave() -> None:
    store = MemoryEntryStore(VirtualClock())
    one, two = flights(store, 2)
    assert (await one.join("acme", key(1))).role is FlightRole.LEAD
    tasks = [asyncio.create_task(two.join("acme", key(1))) for _ in range(3)]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not two._groups
    await store_of(one, store)
    assert (await two.join("acme", key(1))).entry == entry(1)


async def test_a_request_that_is_cancelled_as_it_gets_the_lead_passes_it_on() -> None:
    (flight,) = flights(MemoryEntryStore(VirtualClock()))
    tasks = [asyncio.create_task(flight.join("acme", key(1))) for _ in range(2)]
    for _ in range(100):
        await asyncio.sleep(0)
        group = flight._groups["acme", key(1)]
        if group.flight.state is FlightState.LEADING:
            break
    tasks[0].cancel()
    assert (await tasks[1]).role is FlightRole.LEAD


async def test_a_router_that_dies_is_followed_by_another_when_its_lease_ends() -> None:
    store = MemoryEntryStore(clock := VirtualClock())
    dead, living = flights(store, 2, lease_s=5)
    assert (await dead.join("acme", key(1))).role is FlightRole.LEAD
    assert dead._renewing is not None
    dead._renewing.cancel()  # it is gone: it renews nothing, and releases nothing
    tasks = [asyncio.create_task(living.join("acme", key(1))) for _ in range(4)]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in tasks)
    clock.advance(5)
    leader = await led(tasks)
    await store_of(living, store)
    assert {(await task).role for task in tasks if task is not leader} == {FlightRole.SHARE}


async def test_a_leader_keeps_its_lease_while_it_generates() -> None:
    store = MemoryEntryStore(SystemClock())
    one, two = flights(store, 2, lease_s=0.3)
    assert (await one.join("acme", key(1))).role is FlightRole.LEAD
    follower = asyncio.create_task(two.join("acme", key(1)))
    await asyncio.sleep(0.8)
    assert not follower.done()
    await one.close()
    assert (await follower).role is FlightRole.LEAD


async def test_an_answer_that_may_not_be_stored_lets_all_go_at_once_in_all_routers() -> None:
    one, two = flights(MemoryEntryStore(VirtualClock()), 2)
    tasks = [asyncio.create_task(each.join("acme", key(1))) for each in (one, two) for _ in range(4)]
    leader = await led(tasks)
    await asyncio.sleep(0.05)
    one.unshared("acme", key(1), "length")
    joined = [await task for task in tasks if task is not leader]
    assert {each.role for each in joined} == {FlightRole.ALONE}
    assert {each.reason for each in joined} == {"length", "unshared"}


async def test_a_wait_is_bounded() -> None:
    one, two = flights(MemoryEntryStore(VirtualClock()), 2, max_wait_s=0.1)
    assert (await one.join("acme", key(1))).role is FlightRole.LEAD
    assert await two.join("acme", key(1)) == Joined(FlightRole.ALONE, waited=False, reason="wait")
    assert not two._groups


async def test_without_the_store_all_go_alone() -> None:
    class Gone(MemoryEntryStore):
        def _check_open(self) -> None:
            raise StateUnavailableError("gone")

    (flight,) = flights(Gone(VirtualClock()))
    joined = await asyncio.gather(*(flight.join("acme", key(1)) for _ in range(3)))
    assert {(each.role, each.reason) for each in joined} == {(FlightRole.ALONE, "unavailable")}


@given(st.lists(st.sampled_from(("fail", "store")), max_size=6))
@settings(max_examples=25, deadline=None)
def test_whatever_leaders_do_every_request_gets_its_part(courses: list[str]) -> None:
    async def run() -> None:
        store = MemoryEntryStore(VirtualClock())
        one, two = flights(store, 2)
        tasks = [(each, asyncio.create_task(each.join("acme", key(1)))) for each in (one, two) for _ in range(3)]
        left = list(courses)
        seen: set[int] = set()
        for _ in range(2000):
            for number, (flight, task) in enumerate(tasks):
                if number in seen or not task.done():
                    continue
                seen.add(number)
                if task.result().role is FlightRole.LEAD:
                    if left and left.pop(0) == "fail":
                        flight.failed("acme", key(1))
                    else:
                        await store_of(flight, store)
            if len(seen) == len(tasks):
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"{len(tasks) - len(seen)} requests wait for ever")

    asyncio.run(run())
