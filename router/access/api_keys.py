"""``ApiKeys``: authentication by API key. Keys are held and compared as SHA-256 digests only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from router.config import HASHED, KeyConfig, LimitsConfig
from router.errors import AuthenticationError


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated owner of a request.

    ``key_id`` identifies the key without revealing it: the first 12 digits of its digest. ``tiers`` are those that the
    key may use; None: all. ``limits`` are those of the key.
    """

    tenant: str
    team: str
    key_id: str
    tiers: frozenset[str] | None = None
    limits: LimitsConfig = field(default_factory=LimitsConfig)


class ApiKeys:
    """The accepted API keys. Raises ValueError if two of ``keys`` are equal.

    A lookup in a dict of digests is safe against timing attacks. An attacker cannot choose the digest that is compared,
    and so cannot approach a stored one step by step.
    """

    def __init__(self, keys: Iterable[KeyConfig]) -> None:
        self._principals: dict[str, Principal] = {}
        for key in keys:
            digest = key.key.removeprefix(HASHED) if key.key.startswith(HASHED) else _digest(key.key)
            if digest in self._principals:
                raise ValueError(f"two keys are the same (tenants {self._principals[digest].tenant}, {key.tenant})")
            tiers = None if key.tiers is None else frozenset(key.tiers)
            self._principals[digest] = Principal(key.tenant, key.team, digest[:12], tiers, key.limits)

    def authenticate(self, credentials: str | None) -> Principal:
        """Returns the owner of ``credentials``, which have the form ``Bearer KEY``.

        Raises AuthenticationError for credentials that are missing, malformed or unknown.
        """
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
