"""Documents get their vectors in the background: tenants in turn, and each version of a document."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from router.documents import Document
from router.memory_collection_store import MemoryCollectionStore
from router.ports.collection_store import CollectionLimits, CollectionRecord, NewDocument
from router.ports.embedder import Embedded
from router.retrieval.chunk_embedder import ChunkEmbedder
from router.retrieval.chunking import chunks
from router.retrieval.embedding_worker import EmbeddingWorker
from router.retrieval.stored_document import IndexedDocument, document_bytes, read_vectors
from tests.embedder.fake_embedder import FakeEmbedder

ROOM = CollectionLimits(9, 1000, 1000, 1 << 20)


class Gated(FakeEmbedder):
    """Waits for ``gate`` before each call."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def embed(self, texts: Sequence[str], tenant: str = "") -> Embedded:
        await self.gate.wait()
        return await super().embed(texts, tenant)


async def stored(store: MemoryCollectionStore, tenant: str, *texts: str) -> None:
    """Stores documents, whose ids are d0, d1 and so on, in the collection ``tenant`` of ``tenant``."""
    await store.create_collection(tenant, CollectionRecord(tenant, tenant, "{}"), ROOM)
    for place, text in enumerate(texts):
        document = IndexedDocument(Document(f"d{place}", text), chunks(text, 32, 0), 0)
        new = NewDocument(f"d{place}", document_bytes(document), len(document.chunks), len(text))
        await store.put_documents(tenant, tenant, [new], ROOM)


async def test_many_documents_of_one_tenant_do_not_keep_those_of_others_from_their_vectors() -> None:
    store, embedder = MemoryCollectionStore(), Gated()
    await stored(store, "loud", *(f"loud {n}" for n in range(50)))
    await stored(store, "quiet", "quiet 0", "quiet 1")
    worker = EmbeddingWorker(store, ChunkEmbedder(embedder))
    for n in range(50):
        worker.add("loud", "loud", f"d{n}")
    for n in range(2):
        worker.add("quiet", "quiet", f"d{n}")
    worker.start()
    embedder.gate.set()

    await worker.drained()

    await worker.close()
    order = [texts[0] for texts in embedder.calls]
    assert len(order) == 52
    assert [order.index(f"quiet {n}") for n in range(2)] == [1, 3]


async def test_a_full_queue_leaves_out_what_the_tenant_with_the_most_has_added_last() -> None:
    store, embedder = MemoryCollectionStore(), Gated()
    await stored(store, "loud", *(f"loud {n}" for n in range(4)))
    await stored(store, "quiet", "quiet 0")
    worker = EmbeddingWorker(store, ChunkEmbedder(embedder), max_waiting=4)
    for n in range(4):
        worker.add("loud", "loud", f"d{n}")
    worker.add("quiet", "quiet", "d0")
    worker.start()
    embedder.gate.set()

    await worker.drained()

    await worker.close()
    assert [texts[0] for texts in embedder.calls] == ["loud 0", "quiet 0", "loud 1", "loud 2"]


async def test_a_document_that_is_stored_anew_while_it_is_embedded_is_embedded_anew() -> None:
    store, embedder = MemoryCollectionStore(), Gated()
    await stored(store, "acme", "old")
    worker = EmbeddingWorker(store, ChunkEmbedder(embedder))
    worker.start()
    worker.add("acme", "acme", "d0")
    await asyncio.sleep(0.01)
    await stored(store, "acme", "new")
    worker.add("acme", "acme", "d0")
    worker.add("acme", "acme", "d0")
    embedder.gate.set()

    await worker.drained()

    await worker.close()
    [document] = await store.documents("acme", "acme", ["d0"])
    assert document.vectors is not None
    assert read_vectors(document.vectors).vectors.shape == (1, embedder.dimensions)
    assert embedder.calls == [["old"], ["new"]]
