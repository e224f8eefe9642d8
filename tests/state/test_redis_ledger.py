"""The ledger in Redis: wrong clocks of routers, and reports over many intervals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state.redis_store import MAX_INTERVALS_AT_ONCE, RedisStore
from router.ports.ledger_store import LedgerEntry, LedgerQuery, Resolution
from tests.state.clock import MONDAY, VirtualClock

NOW_MS = int(MONDAY * 1000)
YEAR_MS = 366 * 86_400_000


@pytest.fixture
async def redis_store(redis_server: RedisServer, clock: VirtualClock, tmp_path: Path) -> AsyncIterator[RedisStore]:
    config = StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)
    store = RedisStore(config, redis_server.url, script_clock=clock)
    await store.start()
    yield store
    await store.close()


def entry(name: str, at_ms: int) -> LedgerEntry:
    return LedgerEntry(name, "acme", at_ms, {}, {"requests": 1})


@pytest.mark.parametrize("resolution", Resolution)
async def test_a_router_that_is_ahead_takes_no_sums_away(redis_store: RedisStore, resolution: Resolution) -> None:
    await redis_store.append([entry("right", NOW_MS)])
    await redis_store.append([entry("ahead", NOW_MS + 10 * YEAR_MS)])

    sums = await redis_store.sums(LedgerQuery(NOW_MS, NOW_MS + resolution.ms, resolution))

    assert sums[0].amounts == {"requests": 2}  # the wrong time counts as now


async def test_a_report_over_many_intervals_is_whole(redis_store: RedisStore) -> None:
    minutes = 2 * MAX_INTERVALS_AT_ONCE + 1
    await redis_store.append([entry(f"e{n}", NOW_MS - n * 60_000) for n in range(minutes)])

    sums = await redis_store.sums(LedgerQuery(NOW_MS - minutes * 60_000, NOW_MS + 60_000, Resolution.MINUTE))

    assert sums[0].amounts == {"requests": minutes}
