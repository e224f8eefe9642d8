"""API keys: who is asking. Keys are held and compared as SHA-256 digests only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from router.config import HASHED, KeyConfig
from router.errors import AuthenticationError


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a request. ``key_id`` names the key in logs without revealing it. ``tiers`` None: all tiers."""

    tenant: str
    team: str
    key_id: str
    tiers: frozenset[str] | None = None


class ApiKeys:
    """The keys that open the API.

    Looking a digest up in a dict leaks no useful timing: what it compares is the hash of a guess, which an attacker
    cannot steer towards a stored one.
    """

    def __init__(self, keys: Iterable[KeyConfig]) -> None:
        self._principals: dict[str, Principal] = {}
        for key in keys:
            digest = key.key.removeprefix(HASHED) if key.key.startswith(HASHED) else _digest(key.key)
            if digest in self._principals:
                raise ValueError(f"two keys are the same (tenants {self._principals[digest].tenant}, {key.tenant})")
            tiers = None if key.tiers is None else frozenset(key.tiers)
            self._principals[digest] = Principal(key.tenant, key.team, digest[:12], tiers)

    def authenticate(self, credentials: str | None) -> Principal:
        """The principal of credentials of the form ``Bearer KEY``. Raises AuthenticationError."""
        scheme, _, key = (credentials or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise AuthenticationError(
                "You did not provide an API key. Send it in the header 'Authorization: Bearer YOUR_KEY'.",
                "missing_api_key",
            )
        principal = self._principals.get(_digest(key))
        if principal is None:
            raise AuthenticationError("Incorrect API key provided.", "invalid_api_key")
        return principal


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
