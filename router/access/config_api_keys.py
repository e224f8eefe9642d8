"""``ConfigKeys``: the API keys in the config. They are held and compared as SHA-256 digests only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from router.access.stored_key import principal_of
from router.config.keys import HASHED, KeyConfig
from router.errors import AuthenticationError
from router.principal import Principal


class ConfigKeys:
    """The API keys in the config. Raises ValueError if two of ``keys`` are equal.

    A lookup in a dict of digests is safe against timing attacks. An attacker cannot choose the digest that is compared,
    and so cannot approach a stored one step by step.
    """

    def __init__(self, keys: Iterable[KeyConfig]) -> None:
        self._principals: dict[str, Principal] = {}
        for key in keys:
            digest = key.key.removeprefix(HASHED) if key.key.startswith(HASHED) else digest_of(key.key)
            if digest in self._principals:
                raise ValueError(f"two keys are the same (tenants {self._principals[digest].tenant}, {key.tenant})")
            self._principals[digest] = principal_of(key, key.tenant, key.team, digest[:12])

    def find(self, key: str) -> Principal | None:
        """Returns the principal who owns ``key``; None if ``key`` is not in the config."""
        return self._principals.get(digest_of(key))


def bearer(credentials: str | None) -> str:
    """Returns the key or token in ``credentials``, which have the form ``Bearer KEY`` (RFC 6750).

    Raises AuthenticationError for credentials that are missing or malformed.
    """
    scheme, _, key = (credentials or "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise AuthenticationError(
            "You did not provide an API key. Send it in the header 'Authorization: Bearer YOUR_KEY'.",
            "missing_api_key",
        )
    return key


def unknown_key() -> AuthenticationError:
    """Returns (does not raise) the error for a key that is unknown, revoked or expired. The message does not say which
    of these is the case."""
    return AuthenticationError("Incorrect API key provided.", "invalid_api_key")


def digest_of(key: str) -> str:
    """Returns the SHA-256 digest of a key or token, in hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
