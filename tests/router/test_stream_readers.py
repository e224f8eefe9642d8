"""Clients that read detached streams: how many there may be, and how often they ask the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing

import pytest

from router.config.resume import ResumeConfig
from router.errors import ConflictError, RateLimitError
from router.memory_stream_store import MemoryStreamStore
from router.ports.clock import SystemClock
from router.ports.stream_store import StreamOwner, StreamPart, StreamTerms
from router.resume.detached_streams import DetachedStreams
from router.resume.stream_readers import (
    MAX_READERS,
    POLL_S,
    ROUTER_POLLS_PER_S,
    TENANT_POLLS_PER_S,
    poll_interval_s,
)

OWNER = StreamOwner("acme", "k1")
TERMS = StreamTerms(60_000, 60_000, 1000, 2**20)
Parts = AsyncGenerator[tuple[int, Sequence[str]], None]


class CountedStore(MemoryStreamStore):
    """Counts its reads."""

    reads = 0

    async def read(self, tenant: str, stream_id: str, owner: str, after: int, count: int) -> StreamPart | None:
        self.reads += 1
        return await super().read(tenant, stream_id, owner, after, count)


@pytest.fixture
def store() -> CountedStore:
    return CountedStore(SystemClock())


def streams_on(store: CountedStore, max_streams: int = 256) -> DetachedStreams:
    return DetachedStreams(store, ResumeConfig(max_streams=max_streams), {}, SystemClock())


async def begin(store: CountedStore, *names: str, owner: StreamOwner = OWNER) -> None:
    for name in names:
        await store.append(owner.tenant, name, owner.key_id, 1, ["a"], TERMS)


async def opened(stack: AsyncExitStack, streams: DetachedStreams, name: str, owner: StreamOwner = OWNER) -> Parts:
    """A reader that has its first part."""
    parts = await stack.enter_async_context(aclosing(streams.read(owner, name, 0)))
    assert await anext(parts) == (1, ("a",))
    return parts


async def test_the_newest_readers_of_a_stream_stay_and_older_ones_are_ended(store: CountedStore) -> None:
    streams = streams_on(store)
    await begin(store, "s", "t")
    async with AsyncExitStack() as stack:
        other = await opened(stack, streams, "t")
        readers = [await opened(stack, streams, "s") for _ in range(MAX_READERS + 2)]
        for ended in readers[:2]:
            with pytest.raises(ConflictError) as refused:
                await anext(ended)
            assert refused.value.code == "stream_read_elsewhere"
        for name in ("s", "t"):
            await store.append("acme", name, "k1", 2, ["b"], TERMS, ended=True)
        for reader in (*readers[2:], other):
            assert await anext(reader) == (2, ("b",))


async def test_a_reader_that_has_left_makes_room_for_another(store: CountedStore) -> None:
    streams = streams_on(store)
    await begin(store, "s")
    async with AsyncExitStack() as stack:
        readers = [await opened(stack, streams, "s") for _ in range(MAX_READERS)]
        await readers[1].aclose()
        await opened(stack, streams, "s")
        await store.append("acme", "s", "k1", 2, ["b"], TERMS)
        assert await anext(readers[0]) == (2, ("b",)), "it was not ended"


async def test_ended_readers_that_are_not_gone_yet_count_for_their_tenant(store: CountedStore) -> None:
    streams = streams_on(store, max_streams=2 * MAX_READERS)
    await begin(store, "s")
    async with AsyncExitStack() as stack:
        readers = [await opened(stack, streams, "s") for _ in range(2 * MAX_READERS)]
        before = store.reads
        with pytest.raises(RateLimitError) as refused:
            await opened(stack, streams, "s")
        assert (refused.value.code, refused.value.retry_after_s) == ("too_many_readers", 1)
        assert store.reads == before, "a refusal asks the store for nothing"
        await readers[0].aclose()
        await opened(stack, streams, "s")


async def test_a_foreign_key_takes_no_place_of_a_stream(store: CountedStore) -> None:
    streams, foreign = streams_on(store), StreamOwner("acme", "k2")
    await begin(store, "s")
    async with AsyncExitStack() as stack:
        for _ in range(2 * MAX_READERS):
            with pytest.raises(Exception, match="no such stream"):
                await opened(stack, streams, "s", foreign)
        for _ in range(MAX_READERS):
            await opened(stack, streams, "s")


async def test_a_tenant_has_as_many_readers_as_it_may_have_streams(store: CountedStore) -> None:
    streams, other = streams_on(store, max_streams=3), StreamOwner("other", "k9")
    await begin(store, "s", "t")
    await begin(store, "u", owner=other)
    async with AsyncExitStack() as stack:
        for name in ("s", "s", "t"):
            await opened(stack, streams, name)
        with pytest.raises(RateLimitError, match="3 streams"):
            await opened(stack, streams, "t")
        await opened(stack, streams, "u", other)


@pytest.mark.parametrize(
    ("of_tenant", "of_router", "interval_s"), [(1, 1, POLL_S), (50, 200, POLL_S), (256, 256, 0.512), (10, 4000, 2.0)]
)
def test_readers_look_less_often_the_more_they_are(of_tenant: int, of_router: int, interval_s: float) -> None:
    assert poll_interval_s(of_tenant, of_router) == pytest.approx(interval_s)
    assert of_tenant / interval_s <= TENANT_POLLS_PER_S + 1e-6
    assert of_router / interval_s <= ROUTER_POLLS_PER_S + 1e-6


async def test_two_hundred_readers_of_a_tenant_ask_the_store_at_a_bounded_rate(store: CountedStore) -> None:
    streams, names = streams_on(store), [f"s{number}" for number in range(200)]
    await begin(store, *names)
    async with AsyncExitStack() as stack:
        readers = [await opened(stack, streams, name) for name in names]
        waiting = [asyncio.ensure_future(anext(reader)) for reader in readers]
        before = store.reads
        await asyncio.sleep(1.1)
        asked = store.reads - before
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert asked <= 1.1 * TENANT_POLLS_PER_S + len(names), "it would be 2,000 without a bound"
