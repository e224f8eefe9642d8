"""``PrincipalCache``: the verified keys and tokens of the last few seconds, so that most requests need no store."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from router.principal import Principal


class Verified(NamedTuple):
    """The result of verifying a key or token. Times are in seconds since the epoch.

    ``principal`` is its owner; None: the key was refused. ``at`` is the time of the verification. ``expires_at`` is the
    time at which the key or token expires; None: never.
    """

    principal: Principal | None
    at: float
    expires_at: float | None = None

    def within(self, age_s: float, now: float) -> bool:
        """Returns whether the key was verified at most ``age_s`` seconds ago and has not expired."""
        return 0 <= now - self.at < age_s and (self.expires_at is None or now < self.expires_at)


class PrincipalCache:
    """An LRU cache of at most ``size`` verifications, by the digest of the key or token."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._found: OrderedDict[str, Verified] = OrderedDict()

    def __len__(self) -> int:
        """Returns the number of verifications."""
        return len(self._found)

    def get(self, digest: str) -> Verified | None:
        """Returns the cached verification of a key, however old it is; None if there is none. ``digest`` is that of the
        key or token."""
        found = self._found.get(digest)
        if found is not None:
            self._found.move_to_end(digest)
        return found

    def put(self, digest: str, verified: Verified) -> None:
        """Stores a verification. The least recently used one is evicted if the cache is full. ``digest`` is that of the
        key or token."""
        self._found[digest] = verified
        self._found.move_to_end(digest)
        if len(self._found) > self._size:
            self._found.popitem(last=False)
