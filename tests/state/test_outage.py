"""Redis that is slow or gone: calls end in time, the breaker opens, and every ledger entry arrives once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state.circuit_breaker import BreakerState
from cluster.state.redis_store import RedisStore
from router.ports.ledger_store import LedgerEntry, LedgerQuery
from router.ports.limit_store import Charge
from router.ports.state_store import StateUnavailableError
from tests.state.conftest import acknowledge_what_is_written, wait_until_ready
from tests.state.opened_store import counted, entry, opened, recovered, request
from tests.state.slow_proxy import SlowProxy


async def test_a_slow_store_costs_the_deadline_a_few_times_and_then_nothing(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    proxy = SlowProxy(redis_server.url)
    url = await proxy.start()
    async with opened(url, tmp_path) as store:
        await recovered(store)
        proxy.delay_s = 0.2
        durations = []
        for number in range(50):
            started = time.perf_counter()
            with pytest.raises(StateUnavailableError):
                await store.reserve(request(number), 1000)
            durations.append(time.perf_counter() - started)
            store.record(entry(number))
        assert store.breaker is BreakerState.OPEN
        assert store.health().breakers["reservations"] == "open"
        assert store.health().journal_bytes > 0
        assert max(durations) < 0.15
        assert sorted(durations)[40] < 0.005

        proxy.delay_s = 0.0
        await recovered(store)
        for _ in range(500):
            if await counted(store) == 50:
                break
            await asyncio.sleep(0.02)
        assert await counted(store) == 50
    await proxy.stop()


async def test_every_entry_arrives_once_when_the_store_was_killed(redis_server: RedisServer, tmp_path: Path) -> None:
    acknowledge_what_is_written(redis_server)
    async with opened(redis_server.url, tmp_path) as store:
        for number in range(100):
            store.record(entry(number))
        await asyncio.sleep(0.05)
        redis_server.kill()
        for number in range(100, 300):
            store.record(entry(number))
            await asyncio.sleep(0.001)
        with pytest.raises(StateUnavailableError):
            await store.reserve(request(1), 1000)
        assert redis_server.keep_running()
        wait_until_ready(redis_server)
        await recovered(store)

    async with opened(redis_server.url, tmp_path) as store:
        assert await counted(store) == 300
    assert os.listdir(tmp_path) == []


async def test_a_cancelled_call_leaves_the_connection_usable(redis_server: RedisServer, tmp_path: Path) -> None:
    proxy = SlowProxy(redis_server.url)
    url = await proxy.start()
    async with opened(url, tmp_path, timeout_s=5.0) as store:
        await recovered(store)
        proxy.delay_s = 0.03
        calls = [asyncio.create_task(store.reserve(request(number), 1000)) for number in range(20)]
        await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        proxy.delay_s = 0.0

        decisions = [await store.reserve(request(100 + number), 1000) for number in range(5)]
        assert all(decision.uses[0].limit == 1000 for decision in decisions)
    await proxy.stop()


async def test_many_guessed_keys_do_not_open_the_breaker_of_limits(redis_server: RedisServer, tmp_path: Path) -> None:
    proxy = SlowProxy(redis_server.url)
    url = await proxy.start()
    async with opened(url, tmp_path, timeout_s=1.0) as store:
        await recovered(store)
        proxy.delay_s = 0.05
        guesses = [asyncio.create_task(store.key_by_digest(f"guess-{number}")) for number in range(400)]
        await asyncio.sleep(0.02)

        assert (await store.reserve(request(1), 1000)).admitted
        await asyncio.gather(*guesses, return_exceptions=True)
        assert store.breaker is BreakerState.CLOSED
    await proxy.stop()


async def test_many_tenants_do_not_share_one_deadline(redis_server: RedisServer, tmp_path: Path) -> None:
    proxy = SlowProxy(redis_server.url)
    url = await proxy.start()
    config = StateConfig(journal=tmp_path, background_timeout_s=1.0)
    store = RedisStore(config, url)
    await store.start()
    assert await store.append([LedgerEntry("first", "tenant-0", 0, {}, {"requests": 1})]) == 1
    proxy.delay_s = 0.1  # 20 tenants one after another would take 2 s and more

    entries = [LedgerEntry(f"e{number}", f"tenant-{number}", 0, {}, {"requests": 1}) for number in range(20)]
    assert await store.append(entries) == 20

    proxy.delay_s = 0.0
    await store.close()
    await proxy.stop()


async def test_reports_do_not_delay_settlements(redis_server: RedisServer, tmp_path: Path) -> None:
    proxy = SlowProxy(redis_server.url)
    url = await proxy.start()
    store = RedisStore(StateConfig(journal=tmp_path, timeout_s=2), url)
    await store.start()
    await store.settle("acme", "none", Charge())
    proxy.delay_s = 0.2
    reports = [asyncio.create_task(store.sums(LedgerQuery(0, 86_400_000))) for _ in range(200)]
    await asyncio.sleep(0.05)

    started = time.perf_counter()
    await store.settle("acme", "none", Charge())
    assert time.perf_counter() - started < 1.0

    for report in reports:
        report.cancel()
    await asyncio.gather(*reports, return_exceptions=True)
    await store.close()
    await proxy.stop()


async def test_a_reservation_whose_answer_was_lost_is_made_once(redis_server: RedisServer, tmp_path: Path) -> None:
    """The command is sent again over another connection, after Redis has done it."""
    target, lose = urlsplit(redis_server.url), asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        below, above = await asyncio.open_connection(target.hostname, target.port)

        async def answers() -> None:
            while data := await below.read(65536):
                if lose.is_set():
                    lose.clear()
                    break
                writer.write(data)
            writer.close()

        passing = asyncio.create_task(answers())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                above.write(data)
        above.close()
        await passing

    proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    async with opened(f"redis://:{target.password}@127.0.0.1:{port}/0", tmp_path, timeout_s=5.0) as store:
        await store.reserve(request(1), 1000)
        lose.set()

        decision = await store.reserve(request(2), 1000)

        assert not lose.is_set()
        assert decision.uses[0].used == 20
    proxy.close()
    await asyncio.sleep(0.02)
