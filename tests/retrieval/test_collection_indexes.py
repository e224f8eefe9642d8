"""The indexes of collections in a router's memory: how long they stay, and whose vectors they have."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from router.config.retrieval import RetrievalConfig
from router.documents import Document, SearchMode
from router.expiry_timer import INTERVAL_S
from router.memory_collection_store import MemoryCollectionStore
from router.ports.collection_store import CollectionLimits, CollectionRecord, NewDocument
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


class SlowStore(MemoryCollectionStore):
    """A store whose answer to documents comes when ``go`` is set. ``stored`` is set when it has them."""

    def __init__(self) -> None:
        super().__init__()
        self.stored, self.go = asyncio.Event(), asyncio.Event()

    async def put_documents(
        self, tenant: str, uid: str, documents: Sequence[NewDocument], limits: CollectionLimits
    ) -> CollectionRecord | None:
        kept = await super().put_documents(tenant, uid, documents, limits)
        self.stored.set()
        await self.go.wait()
        return kept


async def test_documents_of_a_client_that_leaves_while_they_are_stored_get_their_vectors(
    embedder: FakeEmbedder, clock: VirtualClock
) -> None:
    store = SlowStore()
    collections = Collections(RetrievalConfig(), store, ChunkEmbedder(embedder), clock)
    await collections.start()
    await collections.create("acme", "notes", {})
    adding = asyncio.create_task(collections.add("acme", "notes", [Document("d", "The harbour is north.")]))
    await store.stored.wait()

    adding.cancel()
    store.go.set()
    await asyncio.wait({adding})

    assert adding.cancelled()
    assert collections.worker is not None
    await collections.worker.drained()
    assert (await collections.get("acme", "notes")).state == "ready"
    await collections.close()


class SlowDeletion(MemoryCollectionStore):
    """Deletes a collection once ``go`` is set. A call of its method sets ``asked``."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def delete_collection(self, tenant: str, name: str) -> bool:
        self.asked.set()
        await self.go.wait()
        return await super().delete_collection(tenant, name)


async def test_a_collection_whose_deletion_has_begun_is_deleted_though_its_client_leaves(clock: VirtualClock) -> None:
    store = SlowDeletion()
    collections = Collections(RetrievalConfig(), store, None, clock)
    await collections.start()
    await collections.create("acme", "notes", {})
    deleting = asyncio.create_task(collections.delete("acme", "notes"))
    await store.asked.wait()

    deleting.cancel()
    store.go.set()
    await asyncio.wait({deleting})

    assert deleting.cancelled()
    assert await collections.list("acme") == []
    await collections.close()


class SlowTerms(list[str]):
    """Terms that a search reads when ``go`` is set. ``read`` is set when it begins."""

    def __init__(self, *terms: str) -> None:
        super().__init__(terms)
        self.read, self.go = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[str]:
        self.read.set()
        assert self.go.wait(60)
        return super().__iter__()


async def test_an_index_does_not_change_while_the_search_of_a_client_that_left_reads_it(
    collections: Collections, embedder: FakeEmbedder
) -> None:
    terms = SlowTerms("harbour")
    query = Query(terms, None, "")
    first = asyncio.create_task(collections.search("acme", "notes", query, SearchMode.BM25, 4, 1.0, None))
    assert await asyncio.to_thread(terms.read.wait, 60)
    await collections.add("acme", "notes", [Document("e", "The harbour is south.")])
    first.cancel()

    second = asyncio.create_task(found(collections, embedder))
    for _ in range(100):
        await asyncio.sleep(0.001)
    assert not second.done()

    terms.go.set()
    assert (await second).chunks == 2
    await asyncio.wait({first})
    assert first.cancelled()
