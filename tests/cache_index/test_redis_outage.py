"""A replica's parts on a real Redis that is killed and comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.cache.config import SemanticCacheConfig
from cluster.cache.pair_stage import PairStage
from cluster.cache.replica_parts import RedisParts
from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.state.redis_entry_store import RedisEntryStore
from router.cache.calibration_table import CalibrationTable, Row
from router.ports.answer_cache import SemanticMatch, SemanticQuestion, SemanticUnavailableError
from tests.cache_index.word_scorer import WordScorer, no_negation
from tests.embedder.fake_embedder import FakeEmbedder
from tests.state.cached import ROOM, entry, key
from tests.state.conftest import wait_until_ready

TABLE = CalibrationTable(version="words@1", different=1000, same=10, rows=(Row(0.5, 1, 10),))


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - another process decides when
            await asyncio.sleep(0.05)


async def test_without_redis_there_is_no_semantic_stage_and_with_it_there_is_again(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    state = StateConfig(
        journal=tmp_path, timeout_s=0.5, background_timeout_s=1, max_faults=2, open_s=0.1, max_open_s=0.2
    )
    config = SemanticCacheConfig(pair_model=tmp_path, min_similarity=0.3)
    parts = RedisParts(config, state, redis_server.url, FakeEmbedder(), PairStage(WordScorer(), no_negation, TABLE))
    store = RedisEntryStore(state, redis_server.url)
    now_ms = int(1000 * time.time())
    times: dict[str, Any] = {"created_ms": now_ms, "expires_ms": now_ms + 600_000}
    await parts.start()
    following = asyncio.create_task(parts.follower.run())

    async def ask() -> SemanticMatch | None:
        text = "how can I reset my password"
        return await parts.index.lookup(SemanticQuestion("acme", key(9999), text, 0.1))

    async def found() -> bool:
        try:
            return await ask() is not None
        except SemanticUnavailableError:
            return False

    await store.put(entry(1, question="how do I reset my password", **times), ROOM)
    await eventually(found)

    await asyncio.to_thread(redis_server.kill)
    with pytest.raises(SemanticUnavailableError):
        await ask()
    await asyncio.sleep(0.3)
    assert not following.done()

    redis_server.keep_running()
    await asyncio.to_thread(wait_until_ready, redis_server)
    await asyncio.sleep(0.3)  # until the breakers let a call through
    await store.put(entry(2, question="how do I reset my password now", **times), ROOM)
    await eventually(found)
    match = await ask()
    assert match is not None
    following.cancel()
    await asyncio.wait([following])
    await store.close()
    await parts.close()
