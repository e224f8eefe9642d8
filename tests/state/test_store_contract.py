"""What every implementation of ``StateStore`` does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from router.ports.key_store import KeyRecord
from router.ports.ledger_store import MAX_VALUES, OTHER, LedgerEntry, LedgerQuery, LedgerSum, Resolution
from router.ports.limit_store import Charge, LimitDecision, LimitName, Renewal, Reservation, Scope
from router.ports.state_store import StateStore, StateUnavailableError
from tests.state.clock import MONDAY, VirtualClock

LEASE_MS = 10_000
START_MS = int(MONDAY * 1000)
KEY = KeyRecord("k1", "acme", "digest-1", '{"team": "core"}')

RPM, TPM, AT_ONCE, TPD, MONEY = LimitName


def scope(name: str = "tenant", **limits: int) -> Scope:
    return Scope(name, tuple((each, limits[each]) for each in LimitName if each in limits))


async def reserve(
    store: StateStore, request_id: str, *scopes: Scope, tokens: int = 0, money: int = 0, tenant: str = "acme"
) -> LimitDecision:
    return await store.reserve(Reservation(request_id, tenant, scopes, Charge(tokens, money)), LEASE_MS)


async def used(store: StateStore, *scopes: Scope, tenant: str = "acme") -> list[int]:
    return [use.used for use in await store.limit_uses(tenant, scopes)]


class TestKeys:
    async def test_a_key_is_found_by_digest_and_by_id(self, store: StateStore) -> None:
        await store.put_key(KEY)

        assert await store.key_by_digest("digest-1") == KEY
        assert await store.key("k1") == KEY
        assert await store.key_by_digest("digest-2") is None
        assert await store.key("k2") is None

    async def test_a_replaced_key_is_found_by_its_new_digest_alone(self, store: StateStore) -> None:
        await store.put_key(KEY)
        rotated = replace(KEY, digest="digest-2", document="{}")
        await store.put_key(rotated)

        assert await store.key_by_digest("digest-1") is None
        assert await store.key_by_digest("digest-2") == rotated
        assert await store.keys("acme") == [rotated]

    async def test_a_record_is_replaced_only_while_it_is_what_was_read(self, store: StateStore) -> None:
        await store.put_key(KEY)
        revoked, limited = replace(KEY, document='{"revoked": 1}'), replace(KEY, document='{"limits": 2}')

        assert await store.replace_key(KEY, revoked)
        assert not await store.replace_key(KEY, limited)

        assert await store.key_by_digest(KEY.digest) == revoked
        assert await store.key(KEY.id) == revoked
        unknown = replace(KEY, digest="digest-9", id="k9")
        assert not await store.replace_key(unknown, unknown)

    async def test_a_key_that_changes_its_tenant_leaves_the_old_one(self, store: StateStore) -> None:
        await store.put_key(KEY)
        await store.put_key(replace(KEY, tenant="other"))

        assert await store.keys("acme") == []
        assert [record.tenant for record in await store.keys()] == ["other"]

    async def test_keys_are_listed_by_tenant(self, store: StateStore) -> None:
        for key in ("b2", "b1", "a2", "a1"):
            await store.put_key(replace(KEY, id=key, tenant=key[0], digest=key))

        assert [record.id for record in await store.keys("b")] == ["b1", "b2"]
        assert [record.id for record in await store.keys()] == ["a1", "a2", "b1", "b2"]
        assert await store.keys("c") == []

    async def test_a_deleted_key_is_found_by_nothing(self, store: StateStore) -> None:
        await store.put_key(KEY)

        assert await store.delete_key("k1")
        assert not await store.delete_key("k1")
        assert await store.key_by_digest("digest-1") is None
        assert await store.keys() == []


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


def entry(
    number: int, at_ms: int = START_MS, tenant: str = "acme", team: str = "core", tokens: int = 10
) -> LedgerEntry:
    labels, amounts = {"team": team, "tier": "fast"}, {"requests": 1, "tokens": tokens}
    return LedgerEntry(f"e{number}", tenant, at_ms, labels, amounts, f'{{"n": {number}}}')


class TestLedger:
    DAY = LedgerQuery(START_MS, START_MS + 86_400_000)

    async def test_sums_are_by_group(self, store: StateStore) -> None:
        added = await store.append([entry(1), entry(2, team="web", tokens=5), entry(3), entry(4, tenant="other")])

        assert added == 4
        assert await store.sums(replace(self.DAY, tenant="acme", group_by=("team",))) == [
            LedgerSum({"team": "core"}, {"requests": 2, "tokens": 20}),
            LedgerSum({"team": "web"}, {"requests": 1, "tokens": 5}),
        ]
        assert await store.sums(replace(self.DAY, group_by=("tenant",))) == [
            LedgerSum({"tenant": "acme"}, {"requests": 3, "tokens": 25}),
            LedgerSum({"tenant": "other"}, {"requests": 1, "tokens": 10}),
        ]

    async def test_an_entry_counts_once(self, store: StateStore) -> None:
        assert await store.append([entry(1), entry(2)]) == 2
        assert await store.append([entry(2), entry(3)]) == 1

        assert (await store.sums(self.DAY))[0].amounts["requests"] == 3
        assert await store.entry("acme", "e2") == '{"n": 2}'
        assert await store.entry("other", "e2") is None

    @pytest.mark.parametrize("resolution", Resolution)
    async def test_sums_are_of_a_range_by_interval(
        self, store: StateStore, clock: VirtualClock, resolution: Resolution
    ) -> None:
        length = resolution.ms
        clock.advance(4 * length / 1000)
        await store.append([entry(n, START_MS + n * length // 2) for n in range(8)])

        sums = await store.sums(LedgerQuery(START_MS + length, START_MS + 3 * length, resolution, by_interval=True))

        assert [(each.start_ms, each.amounts["requests"]) for each in sums] == [
            (START_MS + length, 2),
            (START_MS + 2 * length, 2),
        ]

    async def test_amounts_may_be_large_and_negative(self, store: StateStore) -> None:
        await store.append([entry(1, tokens=2**52), entry(2, tokens=-1)])

        assert (await store.sums(self.DAY))[0].amounts["tokens"] == 2**52 - 1

    @pytest.mark.parametrize("order", ["parts first", "whole first", "whole between"])
    async def test_a_whole_entry_replaces_its_parts_whatever_comes_first(self, store: StateStore, order: str) -> None:
        whole = entry(1, tokens=10)
        parts = [replace(entry(n, team="web", tokens=n), id=f"e1-{n}", part_of="e1") for n in (3, 4)]
        orders = {
            "parts first": [*parts, whole],
            "whole first": [whole, *parts],
            "whole between": [parts[0], whole, parts[1]],
        }
        for each in (*orders[order], whole, *parts):
            await store.append([each])

        sums = await store.sums(replace(self.DAY, group_by=("team",)))

        assert [each for each in sums if any(each.amounts.values())] == [
            LedgerSum({"team": "core"}, {"requests": 1, "tokens": 10})
        ]
        assert await store.entry("acme", "e1") == whole.document

    async def test_parts_with_amounts_of_zero_are_replaced_too(self, store: StateStore) -> None:
        whole = entry(1, tokens=10)
        part = LedgerEntry(
            "e1-0", "acme", START_MS, {"team": "core", "tier": "fast"}, {"requests": 1, "tokens": 0}, "{}", "e1"
        )

        assert await store.append([part]) == 1
        assert await store.append([whole, entry(2, tokens=5)]) == 2

        assert await store.sums(self.DAY) == [LedgerSum({}, {"requests": 2, "tokens": 15})]

    async def test_parts_without_a_whole_entry_count_once_each(self, store: StateStore) -> None:
        parts = [replace(entry(n, tokens=n), id=f"e1-{n}", part_of="e1") for n in (3, 4)]

        assert await store.append(parts) == 2
        assert await store.append(parts) == 0
        assert (await store.sums(self.DAY))[0].amounts == {"requests": 1, "tokens": 7}

    @pytest.mark.parametrize("together", [True, False])
    async def test_the_part_that_comes_first_counts_the_request_whichever_it_is(
        self, store: StateStore, together: bool
    ) -> None:
        """The replica of the first attempt may be gone, and with it the first part."""
        whole = entry(1, tokens=10)
        parts = [replace(entry(1, tokens=n), id=f"e1-0-{n}", part_of="e1") for n in (1, 2)]
        for batch in [parts] if together else [[part] for part in parts]:
            await store.append(batch)

        assert (await store.sums(self.DAY))[0].amounts == {"requests": 1, "tokens": 3}
        await store.append([whole])
        assert (await store.sums(self.DAY))[0].amounts == {"requests": 1, "tokens": 10}

    async def test_parts_and_their_whole_entry_may_come_in_one_batch(self, store: StateStore) -> None:
        part = replace(entry(1, tokens=3), id="e1-0", part_of="e1")
        late = replace(entry(1, tokens=4), id="e1-1", part_of="e1")

        assert await store.append([part, part, entry(1, tokens=10), late, entry(2, tokens=5), entry(2, tokens=5)]) == 3
        assert (await store.sums(self.DAY))[0].amounts == {"requests": 2, "tokens": 15}

    async def test_features_beyond_the_limit_of_a_day_are_summed_together(
        self, store: StateStore, clock: VirtualClock
    ) -> None:
        def of(feature: str, number: int, at_ms: int = START_MS) -> LedgerEntry:
            return LedgerEntry(f"f{number}", "acme", at_ms, {"feature": feature, "tier": "fast"}, {"requests": 1})

        names = [f"f{n:03}" for n in range(MAX_VALUES + 5)]
        await store.append([of(name, n) for n, name in enumerate(names)])
        await store.append([of("f000", 1000), of("", 1001)])
        clock.advance(86_400)
        await store.append([of("f204", 1002, START_MS + 86_400_000)])

        def grouped(sums: Sequence[LedgerSum]) -> dict[str, int]:
            return {each.group["feature"]: each.amounts["requests"] for each in sums}

        found = grouped(await store.sums(replace(self.DAY, group_by=("feature",))))
        assert found == dict.fromkeys(names[:MAX_VALUES], 1) | {"f000": 2, "": 1, OTHER: 5}
        next_day = LedgerQuery(START_MS + 86_400_000, START_MS + 2 * 86_400_000, group_by=("feature",))
        assert grouped(await store.sums(next_day)) == {"f204": 1}

    async def test_labels_may_hold_any_text(self, store: StateStore) -> None:
        team = 'a|b"\n\u00e9{}\x00'
        await store.append([entry(1, team=team)])

        sums = await store.sums(replace(self.DAY, group_by=("team", "absent")))

        assert sums[0].group == {"team": team, "absent": ""}


async def test_a_closed_store_refuses(store: StateStore) -> None:
    await store.close()

    with pytest.raises(StateUnavailableError):
        await store.open_reservations("acme")
