"""``EmbeddingWorker``: embeds documents of collections in the background, one after the other."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from router.documents import Source
from router.ports.collection_store import CollectionStore
from router.ports.embedder import EmbedderUnavailableError
from router.ports.state_store import StateUnavailableError
from router.retrieval.chunk_embedder import ChunkEmbedder
from router.retrieval.passage_index import Row, embedded_text
from router.retrieval.stored_document import StoredDocumentError, read_document, vectors_bytes

logger = logging.getLogger(__name__)

MAX_WAITING = 20_000  # documents; further ones are found again by a search, since they have no vectors
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0  # after a failure


class Pending(NamedTuple):
    """A document without vectors: the ids of its collection and its own."""

    tenant: str
    uid: str
    document: str


class EmbeddingWorker:
    """Embeds the queued documents of one router. Two routers may embed the same document: the vectors of the second are
    equal, or come too late and are dropped. ``pause_s`` is the first pause after a failure, in seconds."""

    def __init__(self, store: CollectionStore, embedder: ChunkEmbedder, pause_s: float = FIRST_PAUSE_S) -> None:
        self._store = store
        self._embedder = embedder
        self._first_pause_s = pause_s
        self._waiting: dict[Pending, None] = {}
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the background task. Called on the event loop of all other calls."""
        self._task = asyncio.ensure_future(self._run())

    async def close(self) -> None:
        """Stops the background task. Documents that still wait are embedded after the next search of their collection,
        by any router."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def add(self, tenant: str, uid: str, document: str) -> None:
        """Queues the document with the id ``document`` of the collection ``uid``. If the queue is full, the document is
        left out; the next search of its collection queues it again."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting[Pending(tenant, uid, document)] = None
            self._idle.clear()
            self._more.set()

    async def drained(self) -> None:
        """Waits until the queue is empty."""
        if self._waiting:
            await self._idle.wait()

    async def _run(self) -> None:
        pause_s = self._first_pause_s
        while True:
            await self._more.wait()
            pending = next(iter(self._waiting))
            try:
                await self._embed(pending)
                pause_s = self._first_pause_s
            except (EmbedderUnavailableError, StateUnavailableError) as error:
                logger.warning("documents wait for their vectors: %s", error)
                if pending in self._waiting:  # behind the others, one of which may be a document that can be embedded
                    self._waiting[pending] = self._waiting.pop(pending)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
                continue
            except Exception as error:  # noqa: BLE001 one document must not keep all others from their vectors
                # Without the message, which may quote the document.
                logger.error("a document is left without vectors: %s", type(error).__name__)
            self._waiting.pop(pending, None)
            if not self._waiting:
                self._more.clear()
                self._idle.set()

    async def _embed(self, pending: Pending) -> None:
        found = await self._store.documents(pending.tenant, pending.uid, [pending.document])
        for stored in found:
            try:
                document, chunks, _ = read_document(stored.body)
            except StoredDocumentError as error:
                logger.warning("a document of a collection is left out: %s", error)
                continue
            source = Source("", document.id, "", document.title)
            texts = [embedded_text(Row(source, document.text[each.start : each.end], each, 0)) for each in chunks]
            vectors = await self._embedder.vectors(texts)
            body = vectors_bytes(self._embedder.model, vectors)
            await self._store.put_vectors(pending.tenant, pending.uid, pending.document, stored.version, body)
