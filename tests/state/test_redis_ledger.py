"""The ledger in Redis: wrong clocks of routers, and reports over many intervals."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import redis

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state import redis_names
from cluster.state.lua_script import LuaScript
from cluster.state.recently_added_tenants import KNOWN_S
from cluster.state.redis_store import MAX_INTERVALS_AT_ONCE, RedisStore
from router.ports.key_store import KeyRecord
from router.ports.ledger_store import MAX_VALUES, LedgerEntry, LedgerQuery, Resolution
from router.ports.state_store import StateUnavailableError
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


async def test_a_tenant_is_listed_again_after_redis_has_lost_its_data(
    redis_server: RedisServer, clock: VirtualClock, tmp_path: Path
) -> None:
    config = StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)
    store = RedisStore(config, redis_server.url, clock=clock, script_clock=clock)
    await store.start()
    await store.append([entry("before", NOW_MS)])
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    clock.advance(KNOWN_S)

    await store.append([entry("after", NOW_MS)])

    sums = await store.sums(LedgerQuery(NOW_MS, NOW_MS + 60_000, Resolution.MINUTE))
    assert sums[0].amounts == {"requests": 1}
    await store.close()


@pytest.mark.parametrize("damaged", ["sums:minute:START", "sums:day:START", "parts:e2"])
async def test_an_append_that_fails_adds_nothing_and_may_be_made_again(
    redis_store: RedisStore, redis_server: RedisServer, damaged: str
) -> None:
    """Redis does not undo what a script wrote before it failed."""
    length = Resolution.DAY.ms if ":day:" in damaged else Resolution.MINUTE.ms
    key = redis_names.base("acme") + damaged.replace("START", str(NOW_MS // length * length))
    entries = [entry("e1", NOW_MS), replace(entry("e2-0", NOW_MS), part_of="e2")]
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(key, "no hash")
        with pytest.raises(StateUnavailableError):
            await redis_store.append(entries)
        assert await redis_store.entry("acme", "e1") is None
        client.delete(key)

    assert await redis_store.append(entries) == 2
    for resolution in Resolution:
        sums = await redis_store.sums(LedgerQuery(NOW_MS, NOW_MS + resolution.ms, resolution))
        assert sums[0].amounts == {"requests": 2}


async def test_a_limit_of_features_is_the_same_in_the_script(redis_store: RedisStore) -> None:
    assert f"local MAX_VALUES = {MAX_VALUES}\n" in LuaScript("ledger").text


class TestKeysOfOtherReleases:
    RECORD = KeyRecord("k1", "acme", "d1", "{}")

    async def read(self, store: RedisStore, url: str, **members: str | None) -> KeyRecord | None:
        """Returns the key after some members of its record were changed; None takes one away."""
        await store.put_key(self.RECORD)
        stored = {name: value for name, value in {**asdict(self.RECORD), **members}.items() if value is not None}
        with redis.Redis.from_url(url) as client:
            client.set(redis_names.key_digest("d1"), json.dumps(stored))
        return await store.key_by_digest("d1")

    async def test_members_that_a_newer_release_has_added_are_ignored(
        self, redis_store: RedisStore, redis_server: RedisServer
    ) -> None:
        assert await self.read(redis_store, redis_server.url, mood="cheerful") == self.RECORD

    async def test_a_record_that_lacks_a_member_is_no_key_and_the_log_names_the_member(
        self, redis_store: RedisStore, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert await self.read(redis_store, redis_server.url, tenant=None) is None
        assert "'tenant'" in caplog.text
