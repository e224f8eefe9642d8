"""What every store of idempotency keys does: that in memory and that in Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state import redis_names
from cluster.state.redis_idempotency_store import RedisIdempotencyStore
from router.memory_idempotency_store import MemoryIdempotencyStore
from router.ports.clock import SystemClock
from router.ports.idempotency_store import IdempotencyStore, KeyClaim, KeyState, KeyTerms
from router.ports.state_store import StateUnavailableError
from tests.state.clock import VirtualClock
from tests.state.kept_texts import keeps

TERMS = KeyTerms(lease_ms=5000, window_ms=60_000, max_keys=3, max_bytes=100)
RUNNING = KeyClaim(KeyState.RUNNING)


@pytest.fixture(params=["memory", "redis"])
async def keys(request: pytest.FixtureRequest, clock: VirtualClock, tmp_path: Path) -> AsyncIterator[IdempotencyStore]:
    made: IdempotencyStore = MemoryIdempotencyStore(clock)
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        config = StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)
        made = RedisIdempotencyStore(config, server.url, script_clock=clock)
    await made.start()
    yield made
    await made.close()


async def claim(
    keys: IdempotencyStore,
    key: str = "k",
    owner: str = "o1",
    account: str = "a1",
    request: str = "r",
    tenant: str = "t",
) -> KeyClaim:
    return await keys.claim(tenant, key, request, owner, account, TERMS)


async def test_one_owner_has_a_key_until_it_has_answered(keys: IdempotencyStore) -> None:
    assert await claim(keys) == (KeyState.CLAIMED, "a1")
    assert await claim(keys, owner="o2", account="a2") == RUNNING
    assert await claim(keys, owner="o2", tenant="other") == (KeyState.CLAIMED, "a1")
    assert not await keys.answer("t", "k", "o2", "answer", TERMS)
    assert await keys.answer("t", "k", "o1", "änswer", TERMS)
    assert await claim(keys, owner="o2") == (KeyState.ANSWERED, "änswer")


async def test_a_key_is_for_one_request(keys: IdempotencyStore) -> None:
    await claim(keys)
    assert await claim(keys, owner="o2", request="r2") == KeyClaim(KeyState.DIFFERENT)
    await keys.answer("t", "k", "o1", "answer", TERMS)
    assert await claim(keys, owner="o2", request="r2") == KeyClaim(KeyState.DIFFERENT)


async def test_a_released_key_is_free_for_any_request(keys: IdempotencyStore) -> None:
    await claim(keys)
    await keys.release("t", "k", "o2")
    assert await claim(keys, owner="o2") == RUNNING
    await keys.release("t", "k", "o1")
    assert await claim(keys, owner="o2", account="a2", request="r2") == (KeyState.CLAIMED, "a2")


async def test_an_answered_key_is_not_released(keys: IdempotencyStore) -> None:
    await claim(keys)
    await keys.answer("t", "k", "o1", "answer", TERMS)
    await keys.release("t", "k", "o1")
    assert (await claim(keys, owner="o2")).state is KeyState.ANSWERED


async def test_a_key_whose_lease_has_ended_is_taken_over_with_its_account(
    keys: IdempotencyStore, clock: VirtualClock
) -> None:
    await claim(keys)
    clock.advance(4.9)
    assert await keys.renew("t", "k", "o1", TERMS)
    clock.advance(4.9)
    assert await claim(keys, owner="o2", account="a2") == RUNNING
    clock.advance(0.2)
    assert await claim(keys, owner="o2", account="a2") == (KeyState.CLAIMED, "a1")
    assert not await keys.renew("t", "k", "o1", TERMS)
    assert not await keys.answer("t", "k", "o1", "late", TERMS)
    assert await keys.renew("t", "k", "o2", TERMS)


async def test_a_key_whose_lease_is_ended_by_its_owner_is_free_at_once_and_keeps_its_account(
    keys: IdempotencyStore,
) -> None:
    await claim(keys)
    assert await keys.renew("t", "k", "o1", replace(TERMS, lease_ms=0))
    assert await claim(keys, owner="o2", account="a2") == (KeyState.CLAIMED, "a1")


async def test_an_answer_is_forgotten_after_the_window(keys: IdempotencyStore, clock: VirtualClock) -> None:
    await claim(keys)
    await keys.answer("t", "k", "o1", "answer", TERMS)
    clock.advance(59.9)
    assert (await claim(keys, owner="o2")).state is KeyState.ANSWERED
    clock.advance(0.2)
    assert await claim(keys, owner="o2", account="a2", request="r2") == (KeyState.CLAIMED, "a2")


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_no_answer_to_a_tenant_that_makes_no_more_calls_outlives_the_window(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url: str | None = None
    keys: IdempotencyStore = MemoryIdempotencyStore(SystemClock())
    if kind == "redis":
        url = request.getfixturevalue("redis_server").url
        keys = RedisIdempotencyStore(StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5), url)
    await keys.start()
    terms = replace(TERMS, window_ms=1800)
    await keys.claim("t", "k", "r", "o1", "a1", terms)
    await keys.answer("t", "k", "o1", "a secret", terms)
    assert keeps("a secret", keys, url)
    await asyncio.sleep(1.8 + 1.2)  # the window, and a second within which a store deletes
    assert not keeps("a secret", keys, url)
    assert await keys.claim("t", "k", "r", "o2", "a2", terms) == (KeyState.CLAIMED, "a2")
    assert await keys.answer("t", "k", "o2", "x" * 100, terms)
    assert (await keys.claim("t", "k", "r", "o3", "a3", terms)).state is KeyState.ANSWERED, "the bytes are free again"
    await keys.close()


async def test_the_bytes_of_answers_that_redis_has_deleted_by_itself_are_free_again(
    redis_server: RedisServer, clock: VirtualClock, tmp_path: Path
) -> None:
    """As under load, when one call forgets fewer keys than are over: here the time of the script stands still."""
    state = StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)
    keys = RedisIdempotencyStore(state, redis_server.url, script_clock=clock)
    await keys.start()
    short, long = replace(TERMS, window_ms=100), replace(TERMS, window_ms=600_000)
    await keys.claim("t", "first to make room", "r", "o", "a", long)
    clock.advance(599.95)
    with redis.Redis.from_url(redis_server.url) as client:
        for _ in range(3):
            await keys.claim("t", "k", "r", "o", "a", short)
            assert await keys.answer("t", "k", "o", "x" * 90, short)
            for name in ("idempotency", "idempotency-bytes", "idempotency-sizes"):
                assert client.persist(f"{redis_names.base('t')}{name}"), "those of a busy tenant stay"
            await asyncio.sleep(1.2)
            assert not keeps("xxx", keys, redis_server.url)
    assert not await keys.renew("t", "first to make room", "o2", long)
    assert await keys.renew("t", "first to make room", "o", long), "it made no room"
    await keys.close()


async def test_a_tenant_has_a_number_of_keys_and_bytes(keys: IdempotencyStore, clock: VirtualClock) -> None:
    for number in range(4):
        clock.advance(1)
        await claim(keys, f"k{number}")
    assert await claim(keys, "k1", owner="o2") == RUNNING
    for number in (1, 2, 3):
        clock.advance(1)
        await keys.answer("t", f"k{number}", "o1", "ü" * 20, TERMS)
    assert (await claim(keys, "k3", owner="o2")).state is KeyState.ANSWERED
    assert (await claim(keys, "k2", owner="o2")).state is KeyState.ANSWERED
    assert (await claim(keys, "k1", owner="o2")).state is KeyState.CLAIMED, "its bytes made room"


async def test_the_time_of_a_claim_does_not_grow_with_the_keys_of_the_tenant(clock: VirtualClock) -> None:
    keys = MemoryIdempotencyStore(clock)
    terms = KeyTerms(lease_ms=5000, window_ms=86_400_000, max_keys=20_000, max_bytes=2**30)
    for number in range(20_000):
        await keys.claim("t", f"k{number}", "r", "o", "a", terms)
        await keys.answer("t", f"k{number}", "o", "x" * 2000, terms)
    started = time.perf_counter()
    for number in range(200):
        await keys.claim("t", "k0", "r", "o", "a", terms)
        await keys.claim("t", f"{number}", "r", "o", "a", terms)
    assert time.perf_counter() - started < 0.2, "it is 0.5 ms or more for each if all keys are looked at"


async def test_a_closed_store_says_so(keys: IdempotencyStore) -> None:
    await keys.close()
    with pytest.raises(StateUnavailableError):
        await claim(keys)
