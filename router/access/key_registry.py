"""``KeyRegistry``: the API keys that the service has created, in the shared store. All calls to the store are here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import ValidationError

from router.access.key_format import ApiKey
from router.access.stored_key import KeyOwner, StoredKey, new_key
from router.errors import NotFoundError, UnavailableError
from router.ports.clock import Clock
from router.ports.key_store import KeyRecord, KeyStore

MAX_CHANGES = 8  # of one key at the same time


class KeyRegistry:
    """Creates, lists, rotates and revokes API keys.

    Each method raises StateUnavailableError if the store is unavailable. Those that take a key id raise NotFoundError
    for an unknown one. ``rotate``, ``revoke`` and ``limit`` also raise UnavailableError if other callers keep changing
    the same key.
    """

    def __init__(self, store: KeyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def find(self, key: ApiKey) -> StoredKey | None:
        """Returns the record of ``key`` if the secret is right and the key is neither revoked nor expired; else
        None."""
        stored = _stored(await self._store.key_by_digest(key.id))
        return stored if stored is not None and stored.opens(key, self._clock.now()) else None

    async def create(self, owner: KeyOwner, expires_at: float | None = None) -> tuple[StoredKey, ApiKey]:
        """Creates a key and returns its record and the key, which cannot be read again. ``expires_at`` is in seconds
        since the epoch; None: it does not expire."""
        stored, key = new_key(owner, self._clock.now(), expires_at)
        await self._store.put_key(stored.record)
        return stored, key

    async def get(self, key_id: str) -> StoredKey:
        """Returns the record of a key."""
        stored = _stored(await self._store.key(key_id))
        if stored is None:
            raise _unknown(key_id)
        return stored

    async def list(self, tenant: str | None = None) -> Sequence[StoredKey]:
        """Returns the records of the tenant's keys, or of all tenants' keys for None, sorted by tenant and id. Revoked
        keys are included."""
        found = [_stored(record) for record in await self._store.keys(tenant)]
        return [stored for stored in found if stored is not None]

    async def rotate(self, key_id: str, grace_s: float = 0.0) -> tuple[StoredKey, ApiKey]:
        """Replaces the secret of a key and returns the record and the new key. The former secret stays valid for
        ``grace_s`` more seconds. Raises NotFoundError for a revoked or expired key too."""
        keys: list[ApiKey] = []

        def rotated(stored: StoredKey) -> StoredKey:
            if not stored.active(self._clock.now()):
                raise NotFoundError(f"The key {key_id} is revoked or expired.", "key_not_found")
            changed, key = stored.rotated(self._clock.now(), grace_s)
            keys.append(key)
            return changed

        return await self._change(key_id, rotated), keys[-1]

    async def revoke(self, key_id: str) -> StoredKey:
        """Revokes a key. Its record stays, so that usage reports can still name the key. A second call has no
        effect."""
        return await self._change(key_id, lambda stored: stored.revoked(self._clock.now()))

    async def change(self, key_id: str, settings: Mapping[str, object]) -> StoredKey:
        """Replaces settings of a key, which are valid, by name, and returns its record."""
        return await self._change(key_id, lambda stored: stored.model_copy(update=dict(settings)))

    async def _change(self, key_id: str, change: Callable[[StoredKey], StoredKey]) -> StoredKey:
        """Replaces a record by what ``change`` makes of it, again if somebody else has changed it meanwhile: a key that
        was revoked must not come back. Raises UnavailableError after MAX_CHANGES of these."""
        for _ in range(MAX_CHANGES):
            found = await self._store.key_by_digest(key_id)
            stored = _stored(found)
            if found is None or stored is None:
                raise _unknown(key_id)
            changed = change(stored)
            if await self._store.replace_key(found, changed.record):
                return changed
        raise UnavailableError(f"The key {key_id} is being changed by others.", "key_changed")


def _unknown(key_id: str) -> NotFoundError:
    return NotFoundError(
        f"There is no key {key_id.encode('ascii', 'backslashreplace').decode()[:64]}.", "key_not_found"
    )


def _stored(record: KeyRecord | None) -> StoredKey | None:
    """Returns the key in ``record``; None if there is none, or one that this release cannot read."""
    if record is None:
        return None
    try:
        return StoredKey.model_validate_json(record.document)
    except ValidationError:
        return None
