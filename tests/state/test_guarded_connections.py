"""The channel of one kind of calls: what is in flight when it closes, and what comes after."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state.guarded_connections import GuardedConnections
from router.ports.clock import SystemClock
from router.ports.state_store import StateUnavailableError


def channel(server: RedisServer, journal: Path) -> GuardedConnections:
    return GuardedConnections("calls", StateConfig(journal=journal), server.url, SystemClock(), 2.0, 8)


def connections(server: RedisServer) -> int:
    """The connections that Redis has, without that of this question."""
    with redis.Redis.from_url(server.url) as client:
        return len(client.client_list()) - 1


async def test_calls_in_flight_end_before_a_channel_closes_and_leave_no_connection(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    before = connections(redis_server)
    calls = channel(redis_server, tmp_path)
    waiting = [asyncio.create_task(calls.call(lambda client: client.blpop("nothing", 0.2))) for _ in range(4)]
    await asyncio.sleep(0)  # begun, and not connected yet

    await calls.close()
    assert [task.done() for task in waiting] == [True] * 4
    assert await asyncio.gather(*waiting) == [None] * 4
    assert connections(redis_server) == before


async def test_a_closed_channel_takes_no_call(redis_server: RedisServer, tmp_path: Path) -> None:
    calls = channel(redis_server, tmp_path)
    await calls.open()
    await calls.close()
    with pytest.raises(StateUnavailableError, match="closed"):
        await calls.call(lambda client: client.ping())


async def test_a_call_past_its_deadline_does_not_hold_up_the_end(redis_server: RedisServer, tmp_path: Path) -> None:
    calls = GuardedConnections("calls", StateConfig(journal=tmp_path), redis_server.url, SystemClock(), 0.1, 8)
    late = asyncio.create_task(calls.call(lambda client: client.blpop("nothing", 5)))
    await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await calls.close()
    with pytest.raises(StateUnavailableError, match="did not answer"):
        await late
