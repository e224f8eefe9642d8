"""Faults that users of other gateways have reported of their Redis; each is tried here with a real server."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from pathlib import Path

import pytest
import redis

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state.circuit_breaker import BreakerState
from cluster.state.redis_store import RedisStore
from router.ports.limit_store import Charge, LimitName, Reservation, Scope
from router.ports.state_store import StateUnavailableError
from tests.state.opened_store import SCOPES, counted, entry, opened, recovered, request


# BerriAI/litellm 35273: a server that no longer answered, its connections open, held up every request for ever
async def test_a_frozen_server_holds_up_no_call_and_is_used_again_when_it_goes_on(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    assert redis_server.pid is not None
    async with opened(redis_server.url, tmp_path) as store:
        await recovered(store)
        os.kill(redis_server.pid, signal.SIGSTOP)
        try:
            durations = []
            for number in range(20):
                started = time.perf_counter()
                with pytest.raises(StateUnavailableError):
                    await store.reserve(request(number), 1000)
                durations.append(time.perf_counter() - started)
                store.record(entry(number))
            assert store.breaker is BreakerState.OPEN
            assert max(durations) < 0.25
        finally:
            os.kill(redis_server.pid, signal.SIGCONT)
        await recovered(store)
        for _ in range(500):
            if await counted(store) == 20:
                break
            await asyncio.sleep(0.02)
        assert await counted(store) == 20


# BerriAI/litellm 40620: while the breaker was open each call wrote an error with its stack into the log
async def test_an_open_breaker_is_logged_once(
    redis_server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    config = StateConfig(journal=tmp_path, timeout_s=0.05, max_faults=3, open_s=60, max_open_s=60)
    store = RedisStore(config, redis_server.url)
    await store.start()
    redis_server.kill()
    try:
        for number in range(200):
            with pytest.raises(StateUnavailableError):
                await store.reserve(request(number), 1000)
        lines = [record for record in caplog.records if "reservations" in record.getMessage()]
        assert [record.exc_info for record in lines] == [None]
    finally:
        redis_server.keep_running()
        await store.close()


# BerriAI/litellm 32232: behind proxies that refuse the command SCRIPT each router kept limits of its own
async def test_limits_need_no_command_script(redis_server: RedisServer, tmp_path: Path) -> None:
    with redis.Redis.from_url(redis_server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "proxied", "on", ">secret", "~*", "&*", "+@all", "-script")
        admin.script_flush()
    address = redis_server.url.rpartition("@")[2]
    async with opened(f"redis://proxied:secret@{address}", tmp_path, timeout_s=5.0) as store:
        assert (await store.reserve(request(1), 1000)).admitted
        store.record(entry(1))
        for _ in range(200):
            if await counted(store):
                break
            await asyncio.sleep(0.02)
        assert await counted(store) == 1


# BerriAI/litellm 40095, 26672, 16011: the first requests of a new user came at once and passed the budget together
async def test_requests_that_come_at_once_share_the_budget_from_the_first_on(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    scopes = (Scope("tenant", ((LimitName.CONCURRENT_REQUESTS, 9), (LimitName.MONEY_PER_MONTH, 55))),)
    async with (
        opened(redis_server.url, tmp_path / "one", 5.0) as one,
        opened(redis_server.url, tmp_path / "two", 5.0) as two,
    ):
        calls = [
            (one, two)[number % 2].reserve(Reservation(f"r{number}", "new", scopes, Charge(1, 10)), 5000)
            for number in range(100)
        ]
        decisions = await asyncio.gather(*calls)
    assert sum(decision.admitted for decision in decisions) == 5


# BerriAI/litellm 9024: a server that closes idle connections failed the next call
async def test_a_connection_that_the_server_has_closed_costs_no_request(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with opened(redis_server.url, tmp_path, timeout_s=5.0) as store:
        for number in range(5):
            with redis.Redis.from_url(redis_server.url) as admin:
                admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert (await store.reserve(request(number), 1000)).admitted
            assert await store.settle("acme", f"r{number}", Charge(1))
        (use,) = await store.limit_uses("acme", SCOPES)
        assert use.used == 5
