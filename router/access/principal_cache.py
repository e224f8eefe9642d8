"""``PrincipalCache``: the verified keys and tokens of the last few seconds, so that most requests need no store."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from router.principal import Principal


class Verified(NamedTuple):
    """A verification. Times are in seconds since the epoch.

    ``principal`` None: the key was refused. ``at`` is when the key was verified. ``expires_at`` is when it expires by
    itself; None: never.
    """

    principal: Principal | None
    at: float
    expires_at: float | None = None

    def within(self, age_s: float, now: float) -> bool:
        """Returns whether the key was verified at most ``age_s`` seconds ago and has not expired."""
        return 0 <= now - self.at < age_s and (self.expires_at is None or now < self.expires_at)


class PrincipalCache:
    """At most ``size`` verifications, by the digest of the key. The one used longest ago makes room."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._found: OrderedDict[str, Verified] = OrderedDict()

    def __len__(self) -> int:
        """Returns the number of verifications."""
        return len(self._found)

    def get(self, digest: str) -> Verified | None:
        """Returns the last verification of a key, of whatever age; None if it is not remembered."""
        found = self._found.get(digest)
        if found is not None:
            self._found.move_to_end(digest)
        return found

    def put(self, digest: str, verified: Verified) -> None:
        """Remembers a verification."""
        self._found[digest] = verified
        self._found.move_to_end(digest)
        if len(self._found) > self._size:
            self._found.popitem(last=False)
