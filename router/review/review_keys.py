"""``ReviewKeys``: the keys of fingerprints, of stored texts and of canary tokens, all derived from one secret."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from router.ports.state_store import StateUnavailableError

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Keys:
    """Three keys of 32 bytes. Their ``repr`` does not show them, so that errors and logs cannot."""

    fingerprints: bytes
    texts: bytes
    canaries: bytes

    def __repr__(self) -> str:
        return "Keys(...)"


def derived(secret: bytes) -> Keys:
    """Returns the keys of ``secret``: one block of HKDF-Expand (RFC 5869, section 2.3) for each key."""
    labels = b"fingerprint", b"text", b"canary"
    return Keys(*(hmac.new(secret, label + b"\x01", hashlib.sha256).digest() for label in labels))


class ReviewKeys:
    """Derives the keys once and caches them. ``secret`` is the config's; None: the secret in the shared store is used,
    which the first router makes. ``shared`` returns the latter: it takes a proposed secret, and raises
    StateUnavailableError if the store does not answer."""

    def __init__(self, secret: bytes | None, shared: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._shared = shared
        self.known: Keys | None = None if secret is None else derived(secret)
        """The keys; None until the store has answered."""
        self._fetching: asyncio.Task[None] | None = None

    async def get(self) -> Keys:
        """Returns the keys. Raises StateUnavailableError if the shared secret is needed and the store does not
        answer."""
        if self.known is None:
            self.known = derived(await self._shared(os.urandom(SECRET_BYTES)))
        return self.known

    async def fetch(self) -> None:
        """Fetches the shared secret, if the store answers."""
        try:
            with contextlib.suppress(StateUnavailableError):
                await self.get()
        finally:
            self._fetching = None

    def at_once(self) -> Keys | None:
        """Returns the keys; None while the shared secret is unknown. It is then fetched in the background."""
        if self.known is None and self._fetching is None:
            self._fetching = asyncio.create_task(self.fetch())
        return self.known
