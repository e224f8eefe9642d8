"""What every implementation of ``StateStore`` does with the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from router.ports.ledger_store import MAX_VALUES, OTHER, LedgerEntry, LedgerQuery, LedgerSum, Resolution
from router.ports.state_store import StateStore
from tests.state.clock import MONDAY, VirtualClock

START_MS = int(MONDAY * 1000)


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
