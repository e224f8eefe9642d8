"""``StoredKey``: the record that the service stores of an API key that it created. It has salted hashes, never the key.
Pure."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict

from router.access.key_format import PREFIX, ApiKey, SecretHash, new_id, new_secret
from router.config.keys import KeyRights
from router.config.settings import Name
from router.ports.key_store import KeyRecord
from router.principal import Principal


class KeyOwner(KeyRights):
    """The owner and the rights of a key that is to be created. ``name`` describes it for people."""

    tenant: Name
    team: Name = "default"
    name: str | None = None


class StoredKey(KeyOwner):
    """A created key as it is stored. Times are in seconds since the epoch.

    ``previous`` is the hash of the secret before the last rotation, which stays valid until ``previous_expires_at``.
    Unknown members are ignored, since two releases share the store during a rollout.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    hash: SecretHash
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    rotated_at: float | None = None
    previous: SecretHash | None = None
    previous_expires_at: float | None = None

    @property
    def prefix(self) -> str:
        """The public beginning of the key, by which people recognise it. It reveals nothing of the secret."""
        return f"{PREFIX}{self.id}"

    def active(self, now: float) -> bool:
        """Returns whether the key is neither revoked nor expired at ``now``, in seconds since the epoch."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def opens(self, key: ApiKey, now: float) -> bool:
        """Returns whether ``key`` is this key, with a right secret, and may be used at ``now``, in seconds since the
        epoch. The secret from before the last rotation is right until ``previous_expires_at``."""
        current = self.hash.matches(key.secret)
        overlap = self.previous is not None and now < (self.previous_expires_at or 0.0)
        former = self.previous is not None and self.previous.matches(key.secret)
        return key.id == self.id and self.active(now) and (current or (overlap and former))

    def valid_until(self, now: float) -> float | None:
        """Returns the next time, in seconds since the epoch, at which the key or its former secret expires; None if
        neither expires."""
        ends = [end for end in (self.expires_at, self.previous_expires_at) if end is not None and end > now]
        return min(ends, default=None)

    @property
    def record(self) -> KeyRecord:
        """The record in the form that the key store takes. The store finds it by the key's public id in one round trip;
        the caller then checks the secret."""
        return KeyRecord(self.id, self.tenant, self.id, self.model_dump_json())

    @property
    def principal(self) -> Principal:
        """The principal of requests that use this key."""
        return principal_of(self, self.tenant, self.team, self.id)

    def rotated(self, now: float, grace_s: float) -> tuple[Self, ApiKey]:
        """Returns the record with a new secret, and the new key. The former secret stays valid for ``grace_s`` more
        seconds."""
        key = ApiKey(self.id, new_secret())
        changes = {
            "hash": SecretHash.of(key.secret),
            "rotated_at": now,
            "previous": self.hash if grace_s > 0 else None,
            "previous_expires_at": now + grace_s if grace_s > 0 else None,
        }
        return self.model_copy(update=changes), key

    def revoked(self, now: float) -> Self:
        """Returns the record of the key, revoked at ``now``, in seconds since the epoch. A key that is revoked already
        keeps its time."""
        return self if self.revoked_at is not None else self.model_copy(update={"revoked_at": now})


def new_key(owner: KeyOwner, now: float, expires_at: float | None = None) -> tuple[StoredKey, ApiKey]:
    """Returns the record of a new key, and the key itself, which is stored nowhere. ``now`` and ``expires_at`` are in
    seconds since the epoch; None: the key does not expire."""
    key = ApiKey(new_id(), new_secret())
    fields = {name: getattr(owner, name) for name in KeyOwner.model_fields}
    record = StoredKey(**fields, id=key.id, hash=SecretHash.of(key.secret), created_at=now, expires_at=expires_at)
    return record, key


def principal_of(rights: KeyRights, tenant: str, team: str, key_id: str) -> Principal:
    """Returns the principal of a key with ``rights``."""
    chooses = rights.feature is None if rights.feature_header is None else rights.feature_header
    return Principal(
        tenant,
        team,
        key_id,
        tiers=_set(rights.tiers),
        feature=rights.feature or "",
        role=rights.role,
        models=_set(rights.models),
        tools=_set(rights.tools),
        endpoints=_set(rights.endpoints),
        chooses_feature=chooses,
        spill=rights.spill,
        limits=rights.limits,
    )


def _set(names: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
