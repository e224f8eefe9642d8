"""``CollectionIndexes``: the indexes of collections in this router's memory, each brought up to date before it is used.

The store is asked for a collection's version with each search. If it has changed, the documents that have changed are
read, so a search sees all changes made through any router.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from router.cancellation_shield import finished
from router.documents import Source, url_of
from router.expiry_timer import ExpiryTimer
from router.ports.clock import Clock
from router.ports.collection_store import CollectionRecord, CollectionStore, StoredDocument
from router.retrieval.passage_index import PassageIndex
from router.retrieval.stored_document import StoredDocumentError, read_document, read_vectors

logger = logging.getLogger(__name__)

READ_AT_ONCE = 16  # documents

OnMissingVectors = Callable[[str, str, str], None]
"""Takes tenant, uid and id of a document that has no vectors of the present model."""


@dataclass(slots=True)
class Held:
    """An index in memory. ``version`` is the collection's version that it has, ``versions`` those of the documents.
    ``model`` is the embedder's whose vectors it has."""

    index: PassageIndex
    model: str
    version: int = -1
    versions: dict[str, int] = field(default_factory=dict)
    used_at: float = 0.0  # in monotonic seconds
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class CollectionIndexes:
    """An LRU cache of indexes with at most ``max_chunks`` chunks in all. An index that was not used for ``idle_s``
    seconds is evicted.

    ``model`` returns the name of the embedder's present model, and ``dimensions`` is the length of its vectors; '' and
    0: there is no embedder. ``on_missing`` is called for each document that has no vectors and should be embedded.
    """

    def __init__(
        self,
        store: CollectionStore,
        clock: Clock,
        max_chunks: int,
        idle_s: float,
        model: Callable[[], str] = str,
        dimensions: int = 0,
        on_missing: OnMissingVectors | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._max_chunks = max_chunks
        self._idle_s = idle_s
        self._model = model
        self._dimensions = dimensions
        self._on_missing = on_missing
        self._held: OrderedDict[str, Held] = OrderedDict()  # by uid, the one that was used last at the end
        self._timer = ExpiryTimer(self._expire)

    @property
    def chunks(self) -> int:
        """The total number of chunks in memory."""
        return sum(len(held.index) for held in self._held.values())

    def drop(self, uid: str) -> None:
        """Drops the index of a collection that was deleted. ``uid`` is its id in the store."""
        self._held.pop(uid, None)

    def close(self) -> None:
        """Drops all indexes."""
        self._timer.cancel()
        self._held.clear()

    @asynccontextmanager
    async def open(self, tenant: str, record: CollectionRecord) -> AsyncIterator[Held]:
        """Yields the index of a collection, with all changes up to ``record``'s version. Other callers wait until the
        context ends, so that an index is not searched while it changes. Raises StateUnavailableError if the store does
        not answer."""
        held = self._of(record.uid)
        held.used_at = self._clock.monotonic()
        self._timer.arm()
        async with held.lock:
            if held.version != record.version:  # also an older one, after a failover to a replica that lags behind
                await finished(self._update(tenant, record, held))
            self._evict(record.uid)
            yield held

    def _of(self, uid: str) -> Held:
        """Returns the index of a collection, a new one if there is none with vectors of the present model: those of two
        models must not be compared."""
        held, model = self._held.get(uid), self._model()
        if held is None or held.model != model:
            held = self._held[uid] = Held(PassageIndex(self._dimensions), model)
        self._held.move_to_end(uid)
        return held

    async def _update(self, tenant: str, record: CollectionRecord, held: Held) -> None:
        present = await self._store.document_versions(tenant, record.uid)
        for document in held.versions.keys() - present.keys():
            held.index.remove(document)
            del held.versions[document]
        changed = [name for name, version in present.items() if held.versions.get(name) != version]
        for start in range(0, len(changed), READ_AT_ONCE):
            found = await self._store.documents(tenant, record.uid, changed[start : start + READ_AT_ONCE])
            missing = await asyncio.to_thread(self._put, held, record.name, found)
            if (notify := self._on_missing) is not None:
                for name in missing:
                    notify(tenant, record.uid, name)
        held.version = record.version
        if held.index.sparse:
            held.index = await asyncio.to_thread(held.index.compact)

    def _put(self, held: Held, collection: str, found: Sequence[StoredDocument]) -> list[str]:
        """Adds documents to an index. Returns the ids of those without vectors of the present model."""
        missing = []
        for stored in found:
            held.versions[stored.id] = stored.version
            try:
                document, chunks, _ = read_document(stored.body)
            except StoredDocumentError as error:
                held.index.remove(stored.id)
                logger.warning("a document of a collection is left out: %s", error)
                continue
            field_name = f"collections.{collection}[{document.id}]"
            source = Source(field_name, document.id, collection, document.title, url_of(document.metadata))
            vectors = None
            if stored.vectors is not None and held.model:
                try:
                    kept = read_vectors(stored.vectors)
                    fits = kept.model == held.model and kept.vectors.shape == (len(chunks), self._dimensions)
                    vectors = kept.vectors if fits else None
                except StoredDocumentError as error:
                    logger.warning("the vectors of a document are made again: %s", error)
            held.index.put(document, source, chunks, vectors)
            if vectors is None and chunks:
                missing.append(document.id)
        return missing

    def _evict(self, used: str) -> None:
        """Forgets indexes that are not in use until the rest is small enough; that of ``used`` stays."""
        for uid, held in list(self._held.items()):
            if self.chunks <= self._max_chunks:
                return
            if uid != used and not held.lock.locked():
                del self._held[uid]

    def _expire(self) -> bool:
        """Forgets the indexes that were not used for a while. Returns whether there are others."""
        now = self._clock.monotonic()
        for uid, held in list(self._held.items()):
            if now - held.used_at > self._idle_s and not held.lock.locked():
                del self._held[uid]
        return bool(self._held)
