"""``EmbeddingWorker``: embeds documents of collections in the background, one after the other, tenants in turn."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import NamedTuple

from router.documents import Source
from router.ports.collection_store import CollectionStore, StoredDocument
from router.ports.embedder import EmbedderUnavailableError
from router.ports.state_store import StateUnavailableError
from router.retrieval.chunk_embedder import ChunkEmbedder
from router.retrieval.passage_index import Row, embedded_text
from router.retrieval.stored_document import StoredDocumentError, read_document, read_vectors, vectors_bytes

logger = logging.getLogger(__name__)

MAX_WAITING = 20_000  # documents of all tenants; others are found again by a search, since they have no vectors
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0  # after a failure


class Pending(NamedTuple):
    """A document without vectors: the ids of its collection and its own."""

    tenant: str
    uid: str
    document: str


class EmbeddingWorker:
    """Embeds the queued documents of one router. Tenants take turns, so that many documents of one do not keep those of
    others from their vectors. Two routers may embed the same document: the vectors of the second are equal, or come too
    late and are dropped. ``pause_s`` is the first pause after a failure, in seconds, ``max_waiting`` the length of the
    queue."""

    def __init__(
        self,
        store: CollectionStore,
        embedder: ChunkEmbedder,
        pause_s: float = FIRST_PAUSE_S,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._first_pause_s = pause_s
        self._max_waiting = max_waiting
        self._waiting: OrderedDict[str, dict[Pending, None]] = OrderedDict()  # by tenant, the next one first
        self._count = 0
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
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
        """Queues the document with the id ``document`` of the collection ``uid``. If the queue is full, the tenant's
        last document is left out if it has more than its share, and else that of the tenant with the most; the next
        search of its collection queues it again."""
        own, pending = self._waiting.setdefault(tenant, {}), Pending(tenant, uid, document)
        self._count += pending not in own
        own[pending] = None
        if self._count > self._max_waiting:
            greedy = len(own) * len(self._waiting) > self._max_waiting
            most = tenant if greedy else max(self._waiting, key=lambda each: len(self._waiting[each]))
            self._drop(next(reversed(self._waiting[most])))
        self._idle.clear()
        self._more.set()

    def _drop(self, pending: Pending) -> None:
        own = self._waiting[pending.tenant]
        del own[pending]
        self._count -= 1
        if not own:
            del self._waiting[pending.tenant]

    def _next(self) -> Pending:
        """Takes the next document from the queue. If it is stored anew while it is embedded, it is queued anew."""
        tenant, own = next(iter(self._waiting.items()))
        self._waiting.move_to_end(tenant)
        pending = next(iter(own))
        self._drop(pending)
        return pending

    async def drained(self) -> None:
        """Waits until the queue is empty, and its last document embedded."""
        await self._idle.wait()

    async def _run(self) -> None:
        pause_s = self._first_pause_s
        while True:
            await self._more.wait()
            pending = self._next()
            try:
                await self._embed(pending)
                pause_s = self._first_pause_s
            except (EmbedderUnavailableError, StateUnavailableError) as error:
                logger.warning("documents wait for their vectors: %s", error)
                self.add(*pending)  # behind the others, one of which may be a document that can be embedded
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
                continue
            except Exception as error:  # noqa: BLE001 one document must not keep all others from their vectors
                # Without the message, which may quote the document.
                logger.error("a document is left without vectors: %s", type(error).__name__)
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
            if self._has_vectors(stored, len(chunks)):
                continue  # another router, or another search, was faster
            source = Source("", document.id, "", document.title)
            texts = [embedded_text(Row(source, document.text[each.start : each.end], each, 0)) for each in chunks]
            made = await self._embedder.vectors(texts, pending.tenant)
            body = vectors_bytes(made.model, made.rows)
            await self._store.put_vectors(pending.tenant, pending.uid, pending.document, stored.version, body)

    def _has_vectors(self, stored: StoredDocument, chunks: int) -> bool:
        """Returns whether a document has vectors of the present model for its chunks."""
        try:
            kept = None if stored.vectors is None else read_vectors(stored.vectors)
        except StoredDocumentError:
            return False
        return (
            kept is not None
            and kept.model == self._embedder.model
            and kept.vectors.shape == (chunks, self._embedder.dimensions)
        )
