"""Searches of many tenants: none keeps the others waiting for long."""

from __future__ import annotations

import asyncio

import pytest

from router.retrieval.search_turns import SearchTurns


async def test_one_tenant_has_all_turns_until_others_come_who_are_then_next() -> None:
    turns, order = SearchTurns(2), list[str]()
    ends = [asyncio.Event() for _ in range(60)]

    async def search(tenant: str) -> None:
        async with turns.turn(tenant):
            order.append(tenant)
            await ends[len(order) - 1].wait()

    searches = [asyncio.create_task(search("loud")) for _ in range(50)]
    await asyncio.sleep(0)
    searches += [asyncio.create_task(search(name)) for name in ("quiet", "other")]
    await asyncio.sleep(0)
    assert order == ["loud", "loud"]
    for end in ends[:6]:
        end.set()
        await asyncio.sleep(0.001)

    assert order == ["loud", "loud", "loud", "quiet", "other", "loud", "loud", "loud"]
    for end in ends:
        end.set()
    await asyncio.gather(*searches)
    assert len(order) == 52


async def test_a_search_that_is_cancelled_or_fails_gives_its_turn_back() -> None:
    turns = SearchTurns(1)

    async def stuck(entered: asyncio.Event) -> None:
        async with turns.turn("acme"):
            entered.set()
            await asyncio.Event().wait()

    for _ in range(3):
        entered = asyncio.Event()
        running = asyncio.create_task(stuck(entered))
        await entered.wait()
        waiting = [asyncio.create_task(stuck(asyncio.Event())) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # while it waits
        running.cancel()
        await asyncio.sleep(0)
        waiting[1].cancel()  # in the breath in which it gets its turn, or after it
        await asyncio.sleep(0)
        waiting[2].cancel()
        await asyncio.wait({running, *waiting})
    with pytest.raises(ValueError):
        async with turns.turn("acme"):
            raise ValueError

    async with asyncio.timeout(1), turns.turn("acme"):
        pass
