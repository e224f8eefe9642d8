"""The prefix index: which block holds the KV of which tokens.

A full block is named by a digest chained over the digest of the block before it, so that equal digests mean equal
tokens from the very start of the sequence, under the same salt: the salt is the parent of the first block.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b


def root_digest(salt: str) -> bytes:
    """Parent of the first block of every sequence with this salt."""
    return blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=16, person=b"manta-kv-root").digest()


def chain_digest(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Digest of a full block after the block ``parent``; 16 bytes, so that collisions cannot be sought."""
    return blake2b(array("q", tokens).tobytes(), digest_size=16, key=parent).digest()


class PrefixIndex:
    """Digest to block and back, one to one."""

    def __init__(self) -> None:
        self._blocks: dict[bytes, int] = {}
        self._digests: dict[int, bytes] = {}

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

    def forget(self, block: int) -> None:
        """Drops the block, if it is known; its content is about to be overwritten."""
        digest = self._digests.pop(block, None)
        if digest is not None:
            del self._blocks[digest]
