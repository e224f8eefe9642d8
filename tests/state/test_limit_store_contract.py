"""What every implementation of ``StateStore`` does with limits and reservations."""

from __future__ import annotations

import asyncio

import pytest

from router.ports.limit_store import Charge, LimitDecision, LimitName, Renewal, Reservation, Scope
from router.ports.state_store import StateStore
from tests.state.clock import VirtualClock

LEASE_MS = 10_000

RPM, TPM, AT_ONCE, TPD, MONEY = LimitName


def scope(name: str = "tenant", **limits: int) -> Scope:
    return Scope(name, tuple((each, limits[each]) for each in LimitName if each in limits))


async def reserve(
    store: StateStore, request_id: str, *scopes: Scope, tokens: int = 0, money: int = 0, tenant: str = "acme"
) -> LimitDecision:
    return await store.reserve(Reservation(request_id, tenant, scopes, Charge(tokens, money)), LEASE_MS)


async def used(store: StateStore, *scopes: Scope, tenant: str = "acme") -> list[int]:
    return [use.used for use in await store.limit_uses(tenant, scopes)]


class TestLimits:
    async def test_what_fits_is_admitted_and_the_next_is_not(self, store: StateStore) -> None:
        limits = scope(requests_per_minute=2)

        decisions = [await reserve(store, f"r{n}", limits) for n in range(3)]

        assert [decision.admitted for decision in decisions] == [True, True, False]
        assert [decision.uses[0].remaining for decision in decisions] == [1, 0, 0]
        assert decisions[2].refused[0].wait_ms == 61_000

    async def test_a_refused_request_takes_nothing_in_any_scope(self, store: StateStore) -> None:
        key, tenant = scope("key:k1", tokens_per_minute=1000), scope(tokens_per_minute=100)

        assert not (await reserve(store, "r", key, tenant, tokens=500)).admitted
        assert await used(store, key, tenant) == [0, 0]
        assert await store.open_reservations("acme") == 0

    async def test_more_than_the_whole_limit_never_has_room(self, store: StateStore) -> None:
        decision = await reserve(store, "r", scope(tokens_per_minute=100), tokens=101)

        assert [use.wait_ms for use in decision.refused] == [None]

    async def test_a_second_charge_takes_the_place_of_the_first_and_no_request_is_counted_twice(
        self, store: StateStore
    ) -> None:
        limits = scope(requests_per_minute=1, tokens_per_minute=100, concurrent_requests=1, money_per_month=50)
        assert (await reserve(store, "a", limits, tokens=20, money=10)).admitted

        for tokens, money in ((100, 50), (60, 10), (60, 10)):
            again = await reserve(store, "a", limits, tokens=tokens, money=money)
            assert again.admitted
            assert [use.used for use in again.uses] == [1, tokens, 1, money]
        assert await store.open_reservations("acme") == 1
        assert await store.settle("acme", "a", Charge(7, 3))
        assert await used(store, limits) == [1, 7, 0, 3]

    async def test_a_second_charge_without_room_leaves_the_first(self, store: StateStore) -> None:
        limits = scope(requests_per_minute=9, tokens_per_minute=100)
        await reserve(store, "a", limits, tokens=20)
        await reserve(store, "b", limits, tokens=50)

        refused = await reserve(store, "a", limits, tokens=51)

        assert [use.name for use in refused.refused] == [TPM]
        assert refused.uses[1].used == 50, "without what the request itself has"
        assert refused.uses[1].wait_ms == 61_000
        assert [use.wait_ms for use in (await reserve(store, "a", limits, tokens=101)).refused] == [None]
        assert await used(store, limits) == [2, 70]
        assert await store.settle("acme", "a", Charge())
        assert await used(store, limits) == [2, 50]

    async def test_a_second_charge_that_is_not_larger_has_room_in_a_limit_that_is_exceeded(
        self, store: StateStore
    ) -> None:
        limits = scope(tokens_per_day=100)
        await reserve(store, "a", limits, tokens=20)
        await reserve(store, "b", limits, tokens=10)
        await store.renew([Renewal("b", "acme", Charge(500))], LEASE_MS)

        assert (await reserve(store, "a", limits, tokens=20)).admitted
        assert (await reserve(store, "a", limits, tokens=5)).admitted
        assert not (await reserve(store, "a", limits, tokens=6)).admitted
        assert await used(store, limits) == [505]

    async def test_a_second_charge_keeps_the_use_that_was_reported(self, store: StateStore) -> None:
        limits = scope(tokens_per_day=100)
        await reserve(store, "a", limits, tokens=20)
        await store.renew([Renewal("a", "acme", Charge(40))], LEASE_MS)

        assert (await reserve(store, "a", limits, tokens=20)).admitted
        assert await used(store, limits) == [40]

    async def test_a_second_charge_after_the_minute_of_the_first_counts_only_its_growth(
        self, store: StateStore, clock: VirtualClock
    ) -> None:
        limits = scope(requests_per_minute=1, tokens_per_minute=100, tokens_per_day=1000)
        await store.reserve(Reservation("a", "acme", (limits,), Charge(60)), 100_000)
        clock.advance(62)

        assert (await store.reserve(Reservation("a", "acme", (limits,), Charge(90)), 100_000)).admitted
        assert await used(store, limits) == [0, 30, 90]

    async def test_a_second_charge_of_a_request_whose_lease_has_run_out_has_no_effect(
        self, store: StateStore, clock: VirtualClock
    ) -> None:
        limits = scope(tokens_per_day=100, concurrent_requests=1)
        await reserve(store, "a", limits, tokens=20)
        clock.advance(LEASE_MS / 1000 + 1)

        assert (await reserve(store, "a", limits, tokens=50)).admitted
        assert await used(store, limits) == [0, 0]
        assert await store.settle("acme", "a", Charge(30))
        assert await used(store, limits) == [0, 30]

    async def test_no_limits_admit_everything(self, store: StateStore) -> None:
        assert (await reserve(store, "r", scope(), tokens=10**9)).admitted

    async def test_concurrent_requests_are_those_that_are_not_settled(self, store: StateStore) -> None:
        limits = scope(concurrent_requests=1)

        assert (await reserve(store, "a", limits)).admitted
        assert not (await reserve(store, "b", limits)).admitted
        assert await store.settle("acme", "a", Charge())
        assert (await reserve(store, "b", limits)).admitted

    async def test_the_limits_of_two_keys_are_apart_and_add_up_in_the_tenant(self, store: StateStore) -> None:
        tenant = scope(concurrent_requests=5, tokens_per_minute=100)
        one, two = scope("key:1", concurrent_requests=1), scope("key:2", concurrent_requests=1)

        await reserve(store, "a", one, tenant, tokens=10)
        await reserve(store, "b", two, tenant, tokens=20)

        assert await used(store, one, two, tenant) == [1, 1, 30, 2]

    async def test_tenants_do_not_share_limits(self, store: StateStore) -> None:
        limits = scope(requests_per_minute=1)

        assert (await reserve(store, "a", limits)).admitted
        assert (await reserve(store, "b", limits, tenant="other")).admitted

    @pytest.mark.parametrize("tokens", [0, 7, 60, 95])
    async def test_a_settled_request_counts_what_it_used(self, store: StateStore, tokens: int) -> None:
        limits = scope(tokens_per_minute=100, tokens_per_day=1000, money_per_month=1000)
        await reserve(store, "a", limits, tokens=60, money=600)

        assert await store.settle("acme", "a", Charge(tokens, 10 * tokens))
        assert await used(store, limits) == [tokens, tokens, 10 * tokens]

    async def test_what_ran_without_a_reservation_counts_once_though_there_is_no_room(self, store: StateStore) -> None:
        limits = scope(requests_per_minute=1, concurrent_requests=1, tokens_per_day=10, money_per_month=10)
        ran = Reservation("a", "acme", (limits,), Charge(30, 300))

        for _ in range(3):
            await store.count(ran)
        assert await used(store, limits) == [1, 0, 30, 300]
        assert await store.open_reservations("acme") == 0
        assert not (await reserve(store, "b", limits, tokens=1)).admitted

    async def test_a_reservation_whose_answer_was_lost_counts_as_what_was_used(self, store: StateStore) -> None:
        limits = scope(requests_per_minute=9, concurrent_requests=1, tokens_per_day=100)
        await reserve(store, "a", limits, tokens=60)

        for _ in range(2):
            await store.count(Reservation("a", "acme", (limits,), Charge(30)))
        assert await used(store, limits) == [1, 0, 30]

    async def test_a_request_is_settled_once(self, store: StateStore) -> None:
        limits = scope(tokens_per_minute=100)
        await reserve(store, "a", limits, tokens=60)

        assert await store.settle("acme", "a", Charge(5))
        assert not await store.settle("acme", "a", Charge(50))
        assert await used(store, limits) == [5]

    async def test_a_lease_that_runs_out_returns_what_was_not_used(
        self, store: StateStore, clock: VirtualClock
    ) -> None:
        limits = scope(concurrent_requests=1, tokens_per_day=100)
        await reserve(store, "a", limits, tokens=60)
        await store.renew([Renewal("a", "acme", Charge(20))], LEASE_MS)
        clock.advance(10.001)

        assert await store.open_reservations("acme") == 0
        assert await used(store, limits) == [0, 20]

    async def test_a_renewed_lease_holds_on(self, store: StateStore, clock: VirtualClock) -> None:
        limits = scope(concurrent_requests=1, tokens_per_day=100)
        await reserve(store, "a", limits, tokens=60)
        for _ in range(3):
            clock.advance(6)
            await store.renew([Renewal("a", "acme", Charge(20))], LEASE_MS)

        assert await used(store, limits) == [1, 60]

    async def test_use_beyond_the_reservation_counts_when_it_is_reported(self, store: StateStore) -> None:
        limits = scope(tokens_per_day=100)
        await reserve(store, "a", limits, tokens=60)
        await store.renew([Renewal("a", "acme", Charge(90)), Renewal("b", "acme", Charge(90))], LEASE_MS)

        assert await used(store, limits) == [90]

    async def test_a_late_settlement_is_right_all_the_same(self, store: StateStore, clock: VirtualClock) -> None:
        limits = scope(tokens_per_day=100)
        await reserve(store, "a", limits, tokens=60)
        clock.advance(100)
        assert await used(store, limits) == [0]

        assert await store.settle("acme", "a", Charge(30))
        assert await used(store, limits) == [30]

    async def test_a_late_renewal_holds_the_request_again(self, store: StateStore, clock: VirtualClock) -> None:
        limits = scope(concurrent_requests=1, tokens_per_day=100)
        await reserve(store, "a", limits, tokens=60)
        clock.advance(100)
        assert await used(store, limits) == [0, 0]

        await store.renew([Renewal("a", "acme", Charge(30))], LEASE_MS)
        assert await used(store, limits) == [1, 30]

    async def test_a_minute_slides(self, store: StateStore, clock: VirtualClock) -> None:
        limits = scope(tokens_per_minute=100)
        await reserve(store, "a", limits, tokens=60)
        await store.settle("acme", "a", Charge(60))
        clock.advance(30)
        await reserve(store, "b", limits, tokens=40)
        await store.settle("acme", "b", Charge(40))

        refused = (await reserve(store, "c", limits, tokens=50)).refused[0]
        assert (refused.wait_ms, refused.reset_ms) == (31_000, 61_000)
        clock.advance(31)
        assert (await reserve(store, "c", limits, tokens=50)).admitted

    @pytest.mark.parametrize(("name", "days"), [("tokens_per_day", 1), ("money_per_month", 13)])
    async def test_a_budget_starts_anew_at_midnight(
        self, store: StateStore, clock: VirtualClock, name: str, days: int
    ) -> None:
        limits = Scope("tenant", ((LimitName(name), 100),))
        await reserve(store, "a", limits, tokens=100, money=100)
        await store.settle("acme", "a", Charge(100, 100))
        clock.advance(86_400 * days - 1)

        assert [use.wait_ms for use in (await reserve(store, "b", limits, tokens=1, money=1)).refused] == [1000]
        clock.advance(1)
        assert (await reserve(store, "b", limits, tokens=1, money=1)).admitted

    async def test_requests_at_the_same_time_do_not_exceed_a_limit(self, store: StateStore) -> None:
        limits = scope(tokens_per_minute=100)

        decisions = await asyncio.gather(*(reserve(store, f"r{n}", limits, tokens=7) for n in range(50)))

        assert sum(decision.admitted for decision in decisions) == 14
