"""A request that takes longer than it may has failed, and one whose client leaves was cancelled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import httpx
import pytest

from router.app_factory import build_app
from router.config.router import RouterConfig
from router.memory_collection_store import MemoryCollectionStore
from router.memory_store import MemoryStore
from router.ports.clock import SystemClock
from router.ports.collection_store import CollectionRecord
from router.router_ports import RouterPorts
from tests.embedder.fake_embedder import FakeEmbedder
from tests.router.backend import ScriptedBackend
from tests.router.cached import KEYS, Cached


async def ledger_of(cached: Cached) -> tuple[str, str | None]:
    """The outcome and the error of the only request."""
    await asyncio.sleep(0.05)  # the engine's counts
    (document,) = cached.documents()
    return document["outcome"], document["error"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_over_its_time_has_failed_in_the_ledger(stream: bool) -> None:
    cached = Cached(backend=ScriptedBackend(stall_at=1), request_timeout_s=0.1)
    answer = await cached.ask(stream=stream)
    assert '"request_timeout"' in answer.text
    assert await ledger_of(cached) == ("failed", "request_timeout")


async def test_a_request_whose_client_leaves_in_time_is_cancelled() -> None:
    cached = Cached(backend=ScriptedBackend(stall_at=1), request_timeout_s=60)
    asking = asyncio.create_task(cached.ask())
    await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert await ledger_of(cached) == ("cancelled", None)


class StuckCollections(MemoryCollectionStore):
    """Never says which collections there are."""

    async def collections(self, tenant: str) -> Sequence[CollectionRecord]:
        await asyncio.Event().wait()
        return []


async def test_a_request_for_collections_over_its_time_has_failed_in_the_ledger() -> None:
    ledger = MemoryStore(SystemClock())
    config = RouterConfig.model_validate({"keys": KEYS, "request_timeout_s": 0.1})
    app = build_app(
        config, ScriptedBackend(), RouterPorts(store=ledger, embedder=FakeEmbedder(), collections=StuckCollections())
    )
    headers = {"authorization": "Bearer sk-user"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers) as http:
        answer = await http.get("/v1/collections")
    assert answer.status_code == 408
    (entry,) = (json.loads(each.document) for each in ledger._entries.values())
    assert (entry["outcome"], entry["error"]) == ("failed", "request_timeout")
