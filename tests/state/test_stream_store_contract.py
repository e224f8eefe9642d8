"""What every store of detached streams does: that in memory and that in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state import redis_names
from cluster.state.redis_stream_store import RedisStreamStore
from router.memory_stream_store import MemoryStreamStore
from router.ports.clock import SystemClock
from router.ports.state_store import StateUnavailableError
from router.ports.stream_store import GONE_MS, MAX_GONE, StreamPart, StreamState, StreamStore, StreamTerms
from tests.state.clock import VirtualClock
from tests.state.kept_texts import keeps

TERMS = StreamTerms(lease_ms=5000, window_ms=30_000, max_streams=3, max_bytes=100)
GONE = StreamPart((), StreamState.GONE)


@pytest.fixture(params=["memory", "redis"])
async def streams(request: pytest.FixtureRequest, clock: VirtualClock, tmp_path: Path) -> AsyncIterator[StreamStore]:
    made: StreamStore = MemoryStreamStore(clock)
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        config = StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)
        made = RedisStreamStore(config, server.url, script_clock=clock)
    await made.start()
    yield made
    await made.close()


async def test_events_are_read_in_order_after_the_last_one_that_arrived(streams: StreamStore) -> None:
    assert await streams.append("acme", "s", "k1", 1, ["a", "bü"], TERMS) == -1
    assert await streams.append("acme", "s", "k1", 3, ["c"], TERMS) == -1
    assert await streams.read("acme", "s", "k1", 0, 100) == (("a", "bü", "c"), StreamState.OPEN)
    assert await streams.read("acme", "s", "k1", 1, 1) == (("bü",), StreamState.OPEN)
    assert await streams.read("acme", "s", "k1", 3, 100) == ((), StreamState.OPEN)
    await streams.append("acme", "s", "k1", 4, ["d"], TERMS, ended=True)
    assert await streams.read("acme", "s", "k1", 3, 100) == (("d",), StreamState.ENDED)


async def test_an_append_that_is_repeated_adds_its_events_once(streams: StreamStore) -> None:
    await streams.append("acme", "s", "k1", 1, ["a", "b"], TERMS)
    await streams.append("acme", "s", "k1", 1, ["a", "b", "c"], TERMS)
    assert await streams.read("acme", "s", "k1", 0, 100) == (("a", "b", "c"), StreamState.OPEN)


async def test_neither_another_key_nor_another_tenant_finds_a_stream(streams: StreamStore) -> None:
    await streams.append("acme", "s", "k1", 1, ["a"], TERMS)
    assert await streams.read("acme", "s", "k2", 0, 100) is None
    assert await streams.read("other", "s", "k1", 0, 100) is None
    assert await streams.read("acme", "t", "k1", 0, 100) is None


async def test_a_stream_without_its_router_is_lost_and_later_gone(streams: StreamStore, clock: VirtualClock) -> None:
    await streams.append("acme", "s", "k1", 1, ["a"], TERMS)
    clock.advance(4.9)
    await streams.append("acme", "s", "k1", 2, [], TERMS)  # renews the lease alone
    clock.advance(4.9)
    assert await streams.read("acme", "s", "k1", 0, 100) == (("a",), StreamState.OPEN)
    clock.advance(0.2)
    assert await streams.read("acme", "s", "k1", 0, 100) == (("a",), StreamState.LOST)
    clock.advance(30)
    assert await streams.read("acme", "s", "k1", 0, 100) == GONE


async def test_the_events_of_an_ended_stream_are_deleted_after_the_window(
    streams: StreamStore, clock: VirtualClock
) -> None:
    await streams.append("acme", "s", "k1", 1, ["a"], TERMS, ended=True)
    clock.advance(29.9)
    assert await streams.read("acme", "s", "k1", 0, 100) == (("a",), StreamState.ENDED)
    clock.advance(0.2)
    assert await streams.read("acme", "s", "k1", 0, 100) == GONE
    assert await streams.read("acme", "s", "k2", 0, 100) is None
    assert await streams.append("acme", "s", "k1", 2, ["b"], TERMS) is None


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_no_text_of_a_tenant_that_makes_no_more_calls_outlives_the_window(
    kind: str, ended: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url: str | None = None
    streams: StreamStore = MemoryStreamStore(SystemClock())
    if kind == "redis":
        url = request.getfixturevalue("redis_server").url
        streams = RedisStreamStore(StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5), url)
    await streams.start()
    terms = replace(TERMS, window_ms=300, lease_ms=200)
    await streams.append("acme", "s", "k1", 1, ["a secret"], terms, ended=ended)
    assert keeps("a secret", streams, url)
    await asyncio.sleep(0.5 + 1.2)  # the window and the lease, and a second within which a store deletes
    assert not keeps("a secret", streams, url)
    assert await streams.read("acme", "s", "k1", 0, 9) == GONE, "its owner is still told so"
    assert await streams.append("acme", "t", "k1", 1, ["x" * 100], terms) == -1, "its bytes are free again"
    await streams.close()


async def test_a_stream_whose_events_redis_has_let_go_is_gone_and_not_ended(
    redis_server: RedisServer, clock: VirtualClock, tmp_path: Path
) -> None:
    """As when one call expires fewer streams than are over, or Redis has lost a part of its memory."""
    state = StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)
    streams = RedisStreamStore(state, redis_server.url, script_clock=clock)
    await streams.start()
    await streams.append("acme", "s", "k1", 1, ["x" * 100], TERMS, ended=True)
    await streams.append("acme", "empty", "k1", 1, [], TERMS)
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.delete(f"{redis_names.base('acme')}stream-events:s")
    assert await streams.read("acme", "s", "k1", 0, 9) == GONE
    assert await streams.read("acme", "empty", "k1", 0, 9) == StreamPart((), StreamState.OPEN)
    assert await streams.append("acme", "t", "k1", 1, ["x" * 100], TERMS) == -1, "its bytes are free again"
    await streams.close()


async def test_a_stream_is_forgotten_an_hour_after_its_events(streams: StreamStore, clock: VirtualClock) -> None:
    if isinstance(streams, RedisStreamStore):
        pytest.skip("Redis forgets by its own clock")
    await streams.append("acme", "s", "k1", 1, ["a"], TERMS, ended=True)
    clock.advance(30 + GONE_MS / 1000)
    assert await streams.read("acme", "s", "k1", 0, 100) is None


async def test_a_tenant_keeps_a_number_of_streams_and_what_ends_first_makes_room(
    streams: StreamStore, clock: VirtualClock
) -> None:
    await streams.append("acme", "running", "k1", 1, ["a"], TERMS)
    for number in range(3):
        clock.advance(1)
        await streams.append("acme", f"ended {number}", "k1", 1, ["a"], TERMS, ended=True)
    await streams.append("other", "s", "k1", 1, ["a"], TERMS)
    states = [await streams.read("acme", name, "k1", 0, 9) for name in ("running", "ended 0", "ended 1", "ended 2")]
    kept = StreamPart(("a",), StreamState.ENDED)
    assert states == [(("a",), StreamState.OPEN), GONE, kept, kept]


async def test_a_tenant_keeps_a_number_of_bytes(streams: StreamStore, clock: VirtualClock) -> None:
    await streams.append("acme", "first", "k1", 1, ["ü" * 30], TERMS)
    clock.advance(1)
    assert await streams.append("acme", "second", "k1", 1, ["x" * 40], TERMS) == -1
    assert (await streams.read("acme", "first", "k1", 0, 9)) == (("ü" * 30,), StreamState.OPEN)
    clock.advance(1)
    assert await streams.append("acme", "second", "k1", 2, ["y"], TERMS) == -1
    assert await streams.read("acme", "first", "k1", 0, 9) == GONE
    assert await streams.append("acme", "second", "k1", 3, ["z" * 60], TERMS) is None, "too long by itself"
    assert await streams.append("acme", "third", "k1", 1, ["x" * 100], TERMS) == -1, "the bytes are free again"


async def test_the_router_of_a_stream_learns_when_it_was_last_read(streams: StreamStore, clock: VirtualClock) -> None:
    terms = replace(TERMS, lease_ms=60_000)
    await streams.append("acme", "s", "k1", 1, ["a"], terms)
    await streams.read("acme", "s", "k2", 0, 9)
    assert await streams.append("acme", "s", "k1", 2, [], terms) == -1
    await streams.read("acme", "s", "k1", 0, 9)
    clock.advance(7)
    assert await streams.append("acme", "s", "k1", 2, [], terms) == 7000


async def test_a_stream_of_which_events_were_lost_is_gone_and_not_numbered_anew(streams: StreamStore) -> None:
    assert await streams.append("acme", "s", "k1", 3, ["c"], TERMS) is None, "as after a restart of Redis"
    assert await streams.read("acme", "s", "k1", 0, 9) == GONE
    await streams.append("acme", "t", "k1", 1, ["a"], TERMS)
    assert await streams.append("acme", "t", "k1", 3, ["c"], TERMS, ended=True) is None
    assert await streams.read("acme", "t", "k1", 0, 9) == GONE
    assert await streams.append("acme", "u", "k1", 1, ["x" * 100], TERMS) == -1, "its bytes are free again"


async def test_a_number_of_streams_that_are_gone_is_remembered(streams: StreamStore) -> None:
    for number in range(MAX_GONE + 2 + TERMS.max_streams):
        await streams.append("acme", f"{number}", "k1", 1, ["a"], TERMS, ended=True)
    found = [await streams.read("acme", f"{number}", "k1", 0, 9) for number in range(MAX_GONE + 2 + TERMS.max_streams)]
    assert found.count(GONE) == MAX_GONE
    assert found.count(None) == 2


async def test_a_closed_store_says_so(streams: StreamStore) -> None:
    await streams.close()
    with pytest.raises(StateUnavailableError):
        await streams.read("acme", "s", "k1", 0, 9)
