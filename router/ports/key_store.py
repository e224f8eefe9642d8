"""``KeyStore``: the port to the API keys that all routers share. The store has no secrets: a key is found by a
digest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key as it is stored.

    ``id`` and ``digest`` are unique. ``key_by_digest`` finds the record by its ``digest``, such as a keyed hash of the
    secret. ``document`` is JSON of everything else; the store does not read it.
    """

    id: str
    tenant: str
    digest: str
    document: str


class KeyStore(Protocol):
    """The stored API keys. Each method raises StateUnavailableError if the store cannot be reached in time."""

    async def put_key(self, record: KeyRecord) -> None:
        """Stores ``record``. Replaces the record with the same id; the replaced record's digest then finds nothing."""
        ...

    async def replace_key(self, expected: KeyRecord, record: KeyRecord) -> bool:
        """Stores ``record`` if the record with its digest, which stays the same, is still ``expected``. Returns whether
        it was stored. Of two concurrent changes one is refused, so that no change is lost."""
        ...

    async def key_by_digest(self, digest: str) -> KeyRecord | None:
        """Returns the record with this digest; None if there is none. It takes one round trip, since requests wait for
        it."""
        ...

    async def key(self, key_id: str) -> KeyRecord | None:
        """Returns the record with this id; None if there is none."""
        ...

    async def keys(self, tenant: str | None = None) -> Sequence[KeyRecord]:
        """Returns the records of ``tenant``, or of all tenants, sorted by tenant and id."""
        ...

    async def delete_key(self, key_id: str) -> bool:
        """Deletes the record with this id. Returns whether there was one."""
        ...
