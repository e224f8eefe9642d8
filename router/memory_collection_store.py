"""``MemoryCollectionStore``: collections in the memory of one process, for a single router and for tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from router.ports.collection_store import (
    CollectionFullError,
    CollectionLimits,
    CollectionRecord,
    NewDocument,
    StoredDocument,
)
from router.ports.state_store import StateUnavailableError


@dataclass(slots=True)
class Kept:
    """A collection and its documents by id, ordered by their last change, earliest first. Beside each document are its
    version and its encoded vectors; None: it has not been embedded."""

    record: CollectionRecord
    documents: dict[str, tuple[NewDocument, int, bytes | None]] = field(default_factory=dict)

    def counted(self) -> CollectionRecord:
        """Returns the record of the collection with its present counts."""
        kept = [document for document, _, _ in self.documents.values()]
        return replace(
            self.record,
            documents=len(kept),
            chunks=sum(document.chunks for document in kept),
            bytes=sum(document.size for document in kept),
            embedded=sum(vectors is not None for _, _, vectors in self.documents.values()),
        )

    def next_version(self) -> int:
        """Increments the version of the collection and returns it."""
        self.record = replace(self.record, version=self.record.version + 1)
        return self.record.version


class MemoryCollectionStore:
    """Implements ``CollectionStore``. Methods do not wait, so each is atomic among the tasks of one event loop."""

    def __init__(self) -> None:
        self._closed = False
        self._tenants: defaultdict[str, dict[str, Kept]] = defaultdict(dict)

    async def start(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True

    async def create_collection(self, tenant: str, record: CollectionRecord, limits: CollectionLimits) -> bool:
        found = self._of(tenant)
        if record.name in found:
            return found[record.name].record.uid == record.uid
        if len(found) >= limits.collections:
            raise CollectionFullError("collections", limits.collections)
        found[record.name] = Kept(record)
        return True

    async def collection(self, tenant: str, name: str) -> CollectionRecord | None:
        kept = self._of(tenant).get(name)
        return None if kept is None else kept.counted()

    async def collections(self, tenant: str) -> Sequence[CollectionRecord]:
        return [kept.counted() for _, kept in sorted(self._of(tenant).items())]

    async def delete_collection(self, tenant: str, name: str) -> bool:
        return self._of(tenant).pop(name, None) is not None

    async def put_documents(
        self, tenant: str, uid: str, documents: Sequence[NewDocument], limits: CollectionLimits
    ) -> CollectionRecord | None:
        kept = self._by_uid(tenant, uid)
        if kept is None:
            return None
        after = Kept(kept.record, {**kept.documents, **{each.id: (each, 0, None) for each in documents}}).counted()
        others = sum(each.counted().bytes for each in self._of(tenant).values()) - kept.counted().bytes
        for limit, value in (
            ("documents", after.documents),
            ("chunks", after.chunks),
            ("bytes", after.bytes + others),
        ):
            if value > (allowed := getattr(limits, limit)):
                raise CollectionFullError(limit, allowed)
        for document in documents:
            kept.documents.pop(document.id, None)
            kept.documents[document.id] = (document, kept.next_version(), None)
        return kept.counted()

    async def document_versions(self, tenant: str, uid: str) -> Mapping[str, int]:
        kept = self._by_uid(tenant, uid)
        return {} if kept is None else {name: version for name, (_, version, _) in kept.documents.items()}

    async def documents(self, tenant: str, uid: str, ids: Sequence[str]) -> Sequence[StoredDocument]:
        kept = self._by_uid(tenant, uid)
        found = {} if kept is None else kept.documents
        return [
            StoredDocument(name, version, document.body, vectors)
            for name, (document, version, vectors) in ((each, found[each]) for each in ids if each in found)
        ]

    async def delete_document(self, tenant: str, uid: str, document: str) -> bool:
        kept = self._by_uid(tenant, uid)
        if kept is None or document not in kept.documents:
            return False
        del kept.documents[document]
        kept.next_version()
        return True

    async def put_vectors(self, tenant: str, uid: str, document: str, version: int, vectors: bytes) -> bool:
        kept = self._by_uid(tenant, uid)
        if kept is None or document not in kept.documents or kept.documents[document][1] != version:
            return False
        new = kept.documents.pop(document)[0]
        kept.documents[document] = (new, kept.next_version(), vectors)
        return True

    def _of(self, tenant: str) -> dict[str, Kept]:
        """Returns the tenant's collections. Raises StateUnavailableError after ``close``."""
        if self._closed:
            raise StateUnavailableError("the store is closed")
        return self._tenants[tenant]

    def _by_uid(self, tenant: str, uid: str) -> Kept | None:
        return next((kept for kept in self._of(tenant).values() if kept.record.uid == uid), None)
