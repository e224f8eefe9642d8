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
    """A limit leaves no room. ``limit`` is its name in ``CollectionLimits``, ``value`` how much it allows."""

    def __init__(self, limit: str, value: int) -> None:
        super().__init__(f"at most {value} {limit}")
        self.limit = limit
        self.value = value


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """A collection. ``uid`` is new for each collection, also for one that has the name of a deleted one. ``document``
    is JSON. ``version`` grows with each change. ``embedded`` counts the documents with vectors."""

    name: str
    uid: str
    document: str
    version: int = 0
    documents: int = 0
    chunks: int = 0
    bytes: int = 0
    embedded: int = 0


class NewDocument(NamedTuple):
    """A document to be kept. ``size`` is what it counts for the limit of bytes."""

    id: str
    body: bytes
    chunks: int
    size: int


class StoredDocument(NamedTuple):
    """A document that is kept. ``version`` is that of its last change; ``vectors`` None: it has none yet."""

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
        """Adds an empty collection. Returns False if the tenant has one of its name; True if the call is repeated.

        Raises CollectionFullError.
        """
        ...

    async def collection(self, tenant: str, name: str) -> CollectionRecord | None:
        """Returns a collection; None if there is none. One round trip: requests wait for it."""
        ...

    async def collections(self, tenant: str) -> Sequence[CollectionRecord]:
        """Returns the collections of a tenant, by name."""
        ...

    async def delete_collection(self, tenant: str, name: str) -> bool:
        """Deletes a collection with all its documents. Returns whether there was one."""
        ...

    async def put_documents(
        self, tenant: str, uid: str, documents: Sequence[NewDocument], limits: CollectionLimits
    ) -> CollectionRecord | None:
        """Keeps ``documents``, all of them or none, in the places of those with their ids; the vectors of these are
        deleted. Returns the collection; None if it was deleted. Raises CollectionFullError."""
        ...

    async def document_versions(self, tenant: str, uid: str) -> Mapping[str, int]:
        """Returns the version of each document, by id, the earliest change first. {}: there are none."""
        ...

    async def documents(self, tenant: str, uid: str, ids: Sequence[str]) -> Sequence[StoredDocument]:
        """Returns those of the documents that are there, in the order of ``ids``."""
        ...

    async def delete_document(self, tenant: str, uid: str, document: str) -> bool:
        """Deletes a document with its vectors. Returns whether there was one."""
        ...

    async def put_vectors(self, tenant: str, uid: str, document: str, version: int, vectors: bytes) -> bool:
        """Keeps the vectors of a document, if its version is still ``version``. Returns whether it was. The document
        gets a new version."""
        ...
