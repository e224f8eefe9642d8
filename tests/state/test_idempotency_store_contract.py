"""What every store of idempotency keys does: that in memory and that in Redis."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.config import StateConfig
from cluster.state.redis_idempotency_store import RedisIdempotencyStore
from router.memory_idempotency_store import MemoryIdempotencyStore
from router.ports.idempotency_store import IdempotencyStore, KeyClaim, KeyState, KeyTerms
from router.ports.state_store import StateUnavailableError
from tests.state.clock import VirtualClock

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


async def test_an_answer_is_forgotten_after_the_window(keys: IdempotencyStore, clock: VirtualClock) -> None:
    await claim(keys)
    await keys.answer("t", "k", "o1", "answer", TERMS)
    clock.advance(59.9)
    assert (await claim(keys, owner="o2")).state is KeyState.ANSWERED
    clock.advance(0.2)
    assert await claim(keys, owner="o2", account="a2", request="r2") == (KeyState.CLAIMED, "a2")


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
