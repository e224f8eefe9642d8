"""``RedisCollections``: collections of documents in Redis. Implements the router's port ``CollectionStore``.

Each operation is one call of a script, so it is atomic and takes one round trip.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.config import StateConfig
from cluster.state import redis_names
from cluster.state.guarded_connections import GuardedConnections
from cluster.state.lua_script import LuaScript
from router.ports.clock import Clock, SystemClock
from router.ports.collection_store import (
    CollectionFullError,
    CollectionLimits,
    CollectionRecord,
    NewDocument,
    StoredDocument,
)
from router.ports.state_store import StateUnavailableError

logger = logging.getLogger(__name__)

MAX_LOOKUPS = 64  # at a time, for which requests wait
MAX_DOCUMENT_CALLS = 8  # which carry documents
MAX_READ_AT_ONCE = 16  # documents of one call: the server does nothing else meanwhile


class RedisCollections:
    """The collections in the Redis at ``url``. Implements ``CollectionStore``. ``clock`` times the circuit breakers.
    Raises ValueError for a wrong URL."""

    def __init__(self, config: StateConfig, url: str, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self._lookups = GuardedConnections("collections", config, url, clock, config.timeout_s, MAX_LOOKUPS)
        self._transfers = GuardedConnections(
            "documents", config, url, clock, config.background_timeout_s, MAX_DOCUMENT_CALLS
        )
        self._script = LuaScript("collections")

    async def start(self) -> None:
        try:
            await asyncio.gather(self._lookups.open(), self._transfers.open())
        except StateUnavailableError as error:
            logger.warning("starting without collections: %s", error)

    async def close(self) -> None:
        await self._lookups.close()
        await self._transfers.close()

    async def create_collection(self, tenant: str, record: CollectionRecord, limits: CollectionLimits) -> bool:
        arguments = (record.name, record.uid, record.document, limits.collections)
        status, *rest = await self._call(self._transfers, tenant, "create", *arguments)
        _check_room(status, rest)
        return bool(status == b"done")

    async def collection(self, tenant: str, name: str) -> CollectionRecord | None:
        found = await self._call(self._lookups, tenant, "get", name)
        return None if found is None else _record(found)

    async def collections(self, tenant: str) -> Sequence[CollectionRecord]:
        found = await self._call(self._transfers, tenant, "list")
        return sorted(map(_record, found), key=lambda each: each.name)

    async def delete_collection(self, tenant: str, name: str) -> bool:
        return bool(await self._call(self._transfers, tenant, "drop", name))

    async def put_documents(
        self, tenant: str, uid: str, documents: Sequence[NewDocument], limits: CollectionLimits
    ) -> CollectionRecord | None:
        rows = [part for each in documents for part in each]
        room = (limits.documents, limits.chunks, limits.bytes)
        status, *rest = await self._call(self._transfers, tenant, "put", uid, *room, *rows)
        _check_room(status, rest)
        return _record(rest[0]) if status == b"done" else None

    async def document_versions(self, tenant: str, uid: str) -> Mapping[str, int]:
        found = await self._call(self._transfers, tenant, "versions", uid)
        return {name.decode(): int(float(version)) for name, version in zip(found[::2], found[1::2], strict=True)}

    async def documents(self, tenant: str, uid: str, ids: Sequence[str]) -> Sequence[StoredDocument]:
        found: list[StoredDocument] = []
        for start in range(0, len(ids), MAX_READ_AT_ONCE):
            part = ids[start : start + MAX_READ_AT_ONCE]
            for name, version, body, vectors in await self._call(self._transfers, tenant, "read", uid, *part):
                found.append(StoredDocument(name.decode(), int(float(version)), body, vectors))
        return found

    async def delete_document(self, tenant: str, uid: str, document: str) -> bool:
        return bool(await self._call(self._transfers, tenant, "remove", uid, document))

    async def put_vectors(self, tenant: str, uid: str, document: str, version: int, vectors: bytes) -> bool:
        return bool(await self._call(self._transfers, tenant, "vectors", uid, document, version, vectors))

    async def _call(
        self, channel: GuardedConnections, tenant: str, operation: str, *arguments: str | int | bytes
    ) -> Any:
        sent: list[Any] = [operation, redis_names.base(tenant), *arguments]
        return await channel.call(lambda client: self._script.run(client, [redis_names.collection_names(tenant)], sent))


def _check_room(status: bytes, rest: Sequence[Any]) -> None:
    """Raises CollectionFullError if the script has found no room."""
    if status == b"full":
        raise CollectionFullError(rest[0].decode(), int(rest[1]))


def _record(row: Sequence[bytes]) -> CollectionRecord:
    """Returns the collection that the script has written."""
    name, uid, document, *counts = row
    version, documents, chunks, size, embedded = map(int, counts)
    return CollectionRecord(name.decode(), uid.decode(), document.decode(), version, documents, chunks, size, embedded)
