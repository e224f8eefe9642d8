"""``Collections``: the named document collections of each tenant. It stores, chunks, embeds and searches their
documents."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from router.cancellation_shield import finished
from router.config.retrieval import RetrievalConfig
from router.documents import Document, SearchMode, size_of
from router.errors import ConflictError, InvalidRequestError, NotFoundError
from router.ports.clock import Clock
from router.ports.collection_store import (
    CollectionFullError,
    CollectionLimits,
    CollectionRecord,
    CollectionStore,
    NewDocument,
)
from router.retrieval.chunk_embedder import ChunkEmbedder
from router.retrieval.chunking import chunks
from router.retrieval.collection_indexes import CollectionIndexes
from router.retrieval.context_packing import Candidate
from router.retrieval.embedding_worker import EmbeddingWorker
from router.retrieval.passage_index import PassageIndex, Query
from router.retrieval.stored_document import IndexedDocument, StoredDocumentError, document_bytes, read_document


class CollectionState(NamedTuple):
    """A collection and its state, which says whether all of its documents have vectors: ``ready``, ``embedding``, or
    ``unembedded`` without an embedder."""

    record: CollectionRecord
    state: str


class DocumentState(NamedTuple):
    """A document of a collection, and its state, as in ``CollectionState``."""

    indexed: IndexedDocument
    state: str


class Found(NamedTuple):
    """The result of searching one collection: the candidates, best first, the number of chunks that were searched, and
    whether vectors were used."""

    candidates: Sequence[Candidate]
    chunks: int
    with_vectors: bool


class Collections:
    """The operations on collections. ``embedder`` None: collections are searched by BM25 alone.

    Each coroutine raises StateUnavailableError if the store does not answer.
    """

    def __init__(
        self, config: RetrievalConfig, store: CollectionStore, embedder: ChunkEmbedder | None, clock: Clock
    ) -> None:
        self._config = config
        self._store = store
        self._clock = clock
        self._limits = CollectionLimits(
            config.max_collections, config.max_documents, config.max_chunks, config.max_bytes
        )
        self.worker = None if embedder is None else EmbeddingWorker(store, embedder)
        self._indexes = CollectionIndexes(
            store,
            clock,
            config.max_indexed_chunks,
            config.index_idle_s,
            str if embedder is None else lambda: embedder.model,
            0 if embedder is None else embedder.dimensions,
            None if self.worker is None else self.worker.add,
        )

    async def start(self) -> None:
        await self._store.start()
        if self.worker is not None:
            self.worker.start()

    async def close(self) -> None:
        if self.worker is not None:
            await self.worker.close()
        self._indexes.close()
        await self._store.close()

    async def create(self, tenant: str, name: str, document: dict[str, Any]) -> CollectionState:
        """Adds an empty collection. ``document`` has the client's description of it. Raises ConflictError if the tenant
        has a collection with this name, or too many collections."""
        kept = json.dumps({**document, "created_at": int(self._clock.now())}, ensure_ascii=False)
        record = CollectionRecord(name, uuid.uuid4().hex, kept)
        try:
            made = await self._store.create_collection(tenant, record, self._limits)
        except CollectionFullError as error:
            raise _full(error, "name") from None
        if not made:
            raise ConflictError(f"The collection '{name}' exists already.", "collection_exists", "name")
        return self._state(record)

    async def get(self, tenant: str, name: str, field: str | None = None) -> CollectionState:
        """Returns a collection. Raises NotFoundError, which names ``field``, if the tenant has none with this name."""
        record = await self._store.collection(tenant, name)
        if record is None:
            raise NotFoundError(f"The collection '{_printable(name)}' does not exist.", "collection_not_found", field)
        return self._state(record)

    async def list(self, tenant: str) -> Sequence[CollectionState]:
        """Returns the collections of a tenant, sorted by name."""
        return [self._state(record) for record in await self._store.collections(tenant)]

    async def delete(self, tenant: str, name: str) -> None:
        """Deletes a collection with all its documents. Raises NotFoundError."""
        record = (await self.get(tenant, name)).record
        # Also for a client that has left: of what is begun to be deleted nothing stays, nor its index in memory.
        await finished(self._remove(tenant, name, record.uid))

    async def add(self, tenant: str, name: str, documents: Sequence[Document]) -> Sequence[DocumentState]:
        """Stores documents, all or none. Searches find them at once by words, and by vectors as soon as they are
        embedded.

        Raises NotFoundError for the collection, InvalidRequestError for two documents with the same id, and
        ConflictError if a limit is exceeded.
        """
        record = (await self.get(tenant, name)).record
        ids = [document.id for document in documents]
        for place, document_id in enumerate(ids):
            if document_id in ids[:place]:
                raise InvalidRequestError("Two documents have this id.", "invalid_value", f"documents[{place}].id")
        indexed = await asyncio.to_thread(self._indexed, documents)
        new = [
            NewDocument(each.document.id, document_bytes(each), len(each.chunks), size_of(each.document))
            for each in indexed
        ]
        # Also for a client that has left: what is stored must be queued for the embedder.
        if not await finished(self._put(tenant, record.uid, new)):
            raise NotFoundError(f"The collection '{name}' does not exist.", "collection_not_found")  # deleted meanwhile
        return [DocumentState(each, self._document_state(embedded=False)) for each in indexed]

    async def documents(self, tenant: str, name: str, after: str, limit: int) -> tuple[Sequence[DocumentState], bool]:
        """Returns at most ``limit`` documents with ids after ``after``, sorted by id, and whether there are more.
        Raises NotFoundError for the collection."""
        record = (await self.get(tenant, name)).record
        ids = sorted(each for each in await self._store.document_versions(tenant, record.uid) if each > after)
        return await self._read(tenant, record.uid, ids[:limit]), len(ids) > limit

    async def document(self, tenant: str, name: str, document: str) -> DocumentState:
        """Returns a document. Raises NotFoundError for the collection or the document."""
        record = (await self.get(tenant, name)).record
        found = await self._read(tenant, record.uid, [document])
        if not found:
            raise _no_document(document)
        return found[0]

    async def delete_document(self, tenant: str, name: str, document: str) -> None:
        """Deletes a document. No search finds it from now on. Raises NotFoundError for the collection or the
        document."""
        record = (await self.get(tenant, name)).record
        if not await self._store.delete_document(tenant, record.uid, document):
            raise _no_document(document)

    async def search(
        self, tenant: str, name: str, query: Query, mode: SearchMode, count: int, trade_off: float, field: str | None
    ) -> Found:
        """Returns the best chunks of a collection, ``count`` at most, diversified as by ``found_in``. Raises
        NotFoundError, which names ``field``, if there is no such collection, and StateUnavailableError."""
        record = (await self.get(tenant, name, field)).record
        async with self._indexes.open(tenant, record) as held:
            comparable = query.comparable(held.model)
            # Also for a client that has left: the index must not change while the thread reads it.
            return await finished(asyncio.to_thread(found_in, held.index, comparable, mode, count, trade_off))

    async def _remove(self, tenant: str, name: str, uid: str) -> None:
        await self._store.delete_collection(tenant, name)
        self._indexes.drop(uid)

    async def _put(self, tenant: str, uid: str, documents: Sequence[NewDocument]) -> bool:
        """Stores documents and queues them for the embedder. Returns whether the collection still exists. Raises
        ConflictError if a limit is exceeded."""
        try:
            kept = await self._store.put_documents(tenant, uid, documents, self._limits)
        except CollectionFullError as error:
            raise _full(error, "documents") from None
        if kept is None:
            return False
        if (worker := self.worker) is not None:
            for each in documents:
                worker.add(tenant, uid, each.id)
        return True

    async def _read(self, tenant: str, uid: str, ids: Sequence[str]) -> Sequence[DocumentState]:
        found = []
        for stored in await self._store.documents(tenant, uid, ids):
            try:
                indexed = read_document(stored.body)
            except StoredDocumentError:
                continue  # of another version: it is neither found nor shown
            found.append(DocumentState(indexed, self._document_state(embedded=stored.vectors is not None)))
        return found

    def _indexed(self, documents: Sequence[Document]) -> Sequence[IndexedDocument]:
        size, overlap, now = self._config.chunk_tokens, self._config.overlap_tokens, int(self._clock.now())
        return [IndexedDocument(document, chunks(document.text, size, overlap), now) for document in documents]

    def _state(self, record: CollectionRecord) -> CollectionState:
        return CollectionState(record, self._document_state(embedded=record.embedded >= record.documents))

    def _document_state(self, *, embedded: bool) -> str:
        if self.worker is None:
            return "unembedded"
        return "ready" if embedded else "embedding"


def found_in(index: PassageIndex, query: Query, mode: SearchMode, count: int, trade_off: float) -> Found:
    """Returns the best chunks of an index, ``count`` at most, diversified by maximal marginal relevance.

    ``trade_off`` is between 0, as different chunks as possible, and 1, the most relevant ones."""
    hits = index.diverse(index.search(query, mode), count, trade_off)
    with_vectors = query.vector is not None and index.vectors > 0 and mode is not SearchMode.BM25
    return Found([candidate_of(index, hit.row, hit.score) for hit in hits], len(index), with_vectors)


def candidate_of(index: PassageIndex, number: int, score: float) -> Candidate:
    """Returns row ``number`` of an index as a candidate for packing."""
    row = index.row(number)
    return Candidate(row.source, row.chunk.start, row.chunk.end, row.text, row.chunk.heading, score, row.place)


def document_id(title: str, text: str) -> str:
    """Returns an id for a document that has none. The same title and text give the same id, so that a request can be
    repeated."""
    digest = hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()
    return f"doc-{digest[:24]}"


def _full(error: CollectionFullError, field: str) -> ConflictError:
    message = f"A limit leaves no room: at most {error.value} {error.limit} are kept."
    return ConflictError(message, "collection_full", field)


def _no_document(document: str) -> NotFoundError:
    return NotFoundError(f"The document '{_printable(document)}' does not exist.", "document_not_found")


def _printable(name: str) -> str:
    return name.encode("ascii", "backslashreplace").decode()[:64]
