"""``ReviewKeys``: the keys of fingerprints and of stored texts, both derived from one secret."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Keys:
    """Two keys of 32 bytes. They never appear in a text of an error or of a log."""

    fingerprints: bytes
    texts: bytes

    def __repr__(self) -> str:
        return "Keys(...)"


def derived(secret: bytes) -> Keys:
    """Returns the keys of ``secret``: HKDF-Expand (RFC 5869, section 2.3) of one block for each use."""
    return Keys(*(hmac.new(secret, label + b"\x01", hashlib.sha256).digest() for label in (b"fingerprint", b"text")))


class ReviewKeys:
    """Derives the keys once. ``secret`` is that of the config; None: the one that the shared store keeps, which the
    first router makes. ``shared`` asks for it, with a proposal, and raises StateUnavailableError."""

    def __init__(self, secret: bytes | None, shared: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._shared = shared
        self.known: Keys | None = None if secret is None else derived(secret)
        """The keys; None until the store has answered."""

    async def get(self) -> Keys:
        """Returns the keys. Raises StateUnavailableError."""
        if self.known is None:
            self.known = derived(await self._shared(os.urandom(SECRET_BYTES)))
        return self.known
