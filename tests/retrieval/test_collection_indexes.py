"""The indexes of collections in a router's memory: how long they stay, and whose vectors they have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from router.config.retrieval import RetrievalConfig
from router.documents import Document, SearchMode
from router.expiry_timer import INTERVAL_S
from router.memory_collection_store import MemoryCollectionStore
from router.retrieval.chunk_embedder import ChunkEmbedder
from router.retrieval.collections import Collections, Found
from router.retrieval.passage_index import Query
from tests.embedder.fake_embedder import FakeEmbedder
from tests.state.clock import VirtualClock


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def collections(embedder: FakeEmbedder, clock: VirtualClock) -> AsyncIterator[Collections]:
    made = Collections(RetrievalConfig(index_idle_s=60), MemoryCollectionStore(), ChunkEmbedder(embedder), clock)
    await made.start()
    await made.create("acme", "notes", {})
    await made.add("acme", "notes", [Document("d", "The harbour is north.")])
    yield made
    await made.close()


async def found(collections: Collections, embedder: FakeEmbedder) -> Found:
    made = await embedder.embed(["harbour"])
    query = Query.of("harbour", made.vectors[0], made.model)
    return await collections.search("acme", "notes", query, SearchMode.HYBRID, 4, 1.0, None)


async def test_an_index_that_is_not_searched_leaves_the_memory_without_another_search(
    collections: Collections, embedder: FakeEmbedder, clock: VirtualClock
) -> None:
    assert (await found(collections, embedder)).chunks == 1
    assert collections._indexes.chunks == 1
    clock.advance(61)

    await asyncio.sleep(1.5 * INTERVAL_S)

    assert collections._indexes.chunks == 0


async def test_after_another_model_took_over_documents_are_embedded_anew(
    collections: Collections, embedder: FakeEmbedder
) -> None:
    worker = collections.worker
    assert worker is not None
    await worker.drained()
    assert (await found(collections, embedder)).with_vectors
    embedder.model = "fake@2"

    assert not (await found(collections, embedder)).with_vectors

    await worker.drained()
    assert (await found(collections, embedder)).with_vectors
    calls = len(embedder.calls)
    assert (await found(collections, embedder)).with_vectors
    await worker.drained()
    assert len(embedder.calls) == calls + 1  # the query's own
