"""``VerdictMemory``: a cache of the verdicts on passages, so that a conversation's history is scanned only once.

It holds no text: a passage is found by the digest of everything that its verdicts depend on.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from safety.api import Passage, Verdict

MAX_SPANS = 256
"""The most spans of a passage that is remembered. A long list of addresses has hundreds of thousands, which would fill
the memory."""


class VerdictMemory:
    """An LRU cache of the verdicts on at most ``size`` passages."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._found: OrderedDict[bytes, tuple[Verdict, ...]] = OrderedDict()

    def __len__(self) -> int:
        """Returns the number of passages."""
        return len(self._found)

    def get(self, key: bytes, place: int) -> tuple[Verdict, ...] | None:
        """Returns the verdicts on a passage, with ``place`` as its index in the present request; None if it is not in
        the cache."""
        found = self._found.get(key)
        if found is None:
            return None
        self._found.move_to_end(key)
        return tuple(replace(verdict, passage=place) for verdict in found)

    def put(self, key: bytes, verdicts: Sequence[Verdict]) -> None:
        """Stores the verdicts on a passage. Verdicts of a check that failed are not stored, since the check did not
        read the passage; nor are verdicts with more than MAX_SPANS spans."""
        if any(verdict.error is not None for verdict in verdicts):
            return
        if sum(len(verdict.spans) for verdict in verdicts) > MAX_SPANS:
            return
        self._found[key] = tuple(verdicts)
        self._found.move_to_end(key)
        if len(self._found) > self._size:
            self._found.popitem(last=False)


def memory_key(tenant: str, policy: str, check: str, version: str, passage: Passage) -> bytes:
    """Returns the digest of everything that the verdicts of a check on a passage depend on. Tenants do not share
    verdicts."""
    parts = (tenant, policy, check, version, passage.origin.value, passage.text)
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()
