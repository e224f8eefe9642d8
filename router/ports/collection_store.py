"""``CollectionStore``: the port to the collections of documents that all routers share. Documents and vectors are bytes
that the store does not read.

``cluster.state.redis_collection_store`` implements it with Redis; ``router.memory_collection_store`` in the memory of
one process. One suite of contract tests runs both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class CollectionLimits(NamedTuple):
    """The most that a tenant may keep. ``documents`` and ``chunks`` are those of one collection, ``bytes`` those of all
    documents of the tenant together."""

    collections: int
    documents: int
    chunks: int
    bytes: int


class CollectionFullError(Exception):
    """A limit of the tenant or the collection is reached. ``limit`` is its name in ``CollectionLimits``, ``value`` its
    value."""

    def __init__(self, limit: str, value: int) -> None:
        super().__init__(f"at most {value} {limit}")
        self.limit = limit
        self.value = value


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """A collection. ``uid`` is unique: a collection with the name of a deleted one gets another. ``document`` is JSON
    of its description by the client and of its time; the store does not read it. ``version`` grows with each change.
    ``embedded`` counts the documents with vectors."""

    name: str
    uid: str
    document: str
    version: int = 0
    documents: int = 0
    chunks: int = 0
    bytes: int = 0
    embedded: int = 0


class NewDocument(NamedTuple):
    """A document to be stored. ``size`` is the number of bytes that it counts for the limit."""

    id: str
    body: bytes
    chunks: int
    size: int


class StoredDocument(NamedTuple):
    """A stored document. ``version`` is that of its last change. ``vectors`` None: it has not been embedded yet."""

    id: str
    version: int
    body: bytes
    vectors: bytes | None


class CollectionStore(Protocol):
    """The collections of all tenants. Each change is atomic. Each coroutine but ``start`` and ``close`` raises
    StateUnavailableError if the store does not answer in time."""

    async def start(self) -> None:
        """Prepares for calls. Called once, on the event loop of all other calls. Does not fail if the store is down."""
        ...

    async def close(self) -> None:
        """Closes all connections. Further calls raise StateUnavailableError."""
        ...

    async def create_collection(self, tenant: str, record: CollectionRecord, limits: CollectionLimits) -> bool:
        """Adds an empty collection. Returns False if the tenant has another collection with its name. A repeated call
        returns True.

        Raises CollectionFullError if the tenant has too many collections.
        """
        ...

    async def collection(self, tenant: str, name: str) -> CollectionRecord | None:
        """Returns a collection; None if there is none. One round trip: requests wait for it."""
        ...

    async def collections(self, tenant: str) -> Sequence[CollectionRecord]:
        """Returns the collections of a tenant, sorted by name."""
        ...

    async def delete_collection(self, tenant: str, name: str) -> bool:
        """Deletes a collection with all its documents. Returns whether there was one."""
        ...

    async def put_documents(
        self, tenant: str, uid: str, documents: Sequence[NewDocument], limits: CollectionLimits
    ) -> CollectionRecord | None:
        """Stores ``documents``, all of them or none. A document replaces the one with its id, whose vectors are
        deleted. Returns the collection; None if it was deleted. Raises CollectionFullError if a limit is exceeded."""
        ...

    async def document_versions(self, tenant: str, uid: str) -> Mapping[str, int]:
        """Returns the version of each document by its id, the earliest change first; {} if there is no document."""
        ...

    async def documents(self, tenant: str, uid: str, ids: Sequence[str]) -> Sequence[StoredDocument]:
        """Returns those of the documents ``ids`` that exist, in the order of ``ids``. ``uid`` is that of the
        collection."""
        ...

    async def delete_document(self, tenant: str, uid: str, document: str) -> bool:
        """Deletes the document with the id ``document``, and its vectors. Returns whether there was one."""
        ...

    async def put_vectors(self, tenant: str, uid: str, document: str, version: int, vectors: bytes) -> bool:
        """Stores the vectors of the document with the id ``document``, if its version is still ``version``. Returns
        whether they were stored. The document gets a new version."""
        ...
