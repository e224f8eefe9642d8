"""The prefix index: which block holds the KV of which tokens.

A full block is named by a digest chained over the digest of the block before it, so that equal digests mean equal
tokens from the very start of the sequence, under the same salt, model and KV format: these are the parent of the first
block.

A miss has a reason, and the index knows it: bounded memories of what was evicted, and of how sequences have begun under
any salt. They name blocks by digest alone; only operators are told.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from enum import StrEnum
from hashlib import blake2b

_NO_SALT = b"any salt"


class Miss(StrEnum):
    """Why a prompt was not found whole in the prefix cache: of its first block that is missing."""

    SHORT = "short"  # the prompt fills no block that could be shared
    EVICTED = "evicted"  # it was there, and has given way to others since
    OTHER_SALT = "other_salt"  # another salt's prompts begin alike
    NEW = "new"  # nothing has begun like this, as far as is remembered


def root_digest(salt: str, version: str = "") -> bytes:
    """Parent of the first block of every sequence with this salt; ``version`` names the model and its KV format."""
    given = blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=16, person=b"manta-kv-root")
    given.update(b"\0" + version.encode("utf-8", "surrogatepass"))
    return given.digest()


def chain_digest(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Digest of a full block after the block ``parent``; 16 bytes, so that collisions cannot be sought."""
    return blake2b(array("q", tokens).tobytes(), digest_size=16, key=parent).digest()


class PrefixIndex:
    """Digest to block and back, one to one. Remembers ``memory`` blocks that are gone, and as many beginnings."""

    def __init__(self, memory: int = 0) -> None:
        self._blocks: dict[bytes, int] = {}
        self._digests: dict[int, bytes] = {}
        self._evicted = _Memory(memory)
        self._beginnings = _Memory(memory)

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, block: int) -> bool:
        return block in self._digests

    def knows(self, digest: bytes) -> bool:
        """Whether some block holds this content."""
        return digest in self._blocks

    def match(self, digests: Sequence[bytes]) -> list[int]:
        """Blocks of the longest known prefix of a chain."""
        found: list[int] = []
        for digest in digests:
            block = self._blocks.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def insert(self, digest: bytes, block: int) -> None:
        """Indexes ``block``, unless another block already holds the same content."""
        if digest not in self._blocks and block not in self._digests:
            self._blocks[digest] = block
            self._digests[block] = digest

    def begin(self, first_block: Sequence[int]) -> None:
        """Some salt's sequence begins with these tokens, and its first block has been inserted."""
        self._beginnings.add(chain_digest(_NO_SALT, first_block))

    def explain(self, digests: Sequence[bytes], found: int, first_block: Sequence[int]) -> Miss | None:
        """Why only ``found`` blocks of a chain are known; None if all are. O(1)."""
        if not digests:
            return Miss.SHORT
        if found == len(digests):
            return None
        if digests[found] in self._evicted:
            return Miss.EVICTED
        if found == 0 and chain_digest(_NO_SALT, first_block) in self._beginnings:
            return Miss.OTHER_SALT
        return Miss.NEW

    def forget(self, block: int) -> None:
        """Drops the block, if it is known; its content is about to be overwritten."""
        digest = self._digests.pop(block, None)
        if digest is not None:
            del self._blocks[digest]
            self._evicted.add(digest)


class _Memory:
    """The digests added last, ``size`` at most."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._digests

    def add(self, digest: bytes) -> None:
        """Remembers the digest, if need be in place of the oldest."""
        self._digests[digest] = None
        self._digests.move_to_end(digest)
        if len(self._digests) > self._size:
            self._digests.popitem(last=False)
