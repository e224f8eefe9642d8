"""The prefix index finds the KV blocks of a token prefix (vLLM's block hashes, SGLang's radix cache).

A full block is identified by a hash of its tokens that is chained with the hash of the block before it. So equal hashes
mean equal tokens from the start of the sequence. The first block is chained with a root hash of the cache salt, the
model and its KV format.

The index can also say why a prefix was not found: it remembers a limited number of evicted blocks, and of first blocks
under any salt. It stores hashes only, no tokens, and the reason goes into metrics, not into answers.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from enum import StrEnum
from hashlib import blake2b

_NO_SALT = b"any salt"


class Miss(StrEnum):
    """The reason for which a prompt was not fully found in the prefix cache, by its first missing block."""

    SHORT = "short"  # the prompt is too short to fill a block that could be shared
    EVICTED = "evicted"  # the block was cached and has been evicted
    OTHER_SALT = "other_salt"  # a prompt with the same first block was cached under another salt
    NEW = "new"  # no prompt with this prefix is remembered


def root_digest(salt: str, version: str = "") -> bytes:
    """Returns the parent hash, 16 bytes, of the first block of all sequences with this ``salt``. ``version`` names the
    model and its KV format."""
    given = blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=16, person=b"manta-kv-root")
    given.update(b"\0" + version.encode("utf-8", "surrogatepass"))
    return given.digest()


def chain_digest(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Returns the hash of a full block of ``tokens`` after the block with the hash ``parent``: 16 bytes, so that
    collisions cannot be constructed."""
    return blake2b(array("q", tokens).tobytes(), digest_size=16, key=parent).digest()


class PrefixIndex:
    """Maps hashes to blocks and back, one to one. Remembers the last ``memory`` evicted blocks, and as many first
    blocks of prompts."""

    def __init__(self, memory: int = 0) -> None:
        self._blocks: dict[bytes, int] = {}
        self._digests: dict[int, bytes] = {}
        self._evicted = _Memory(memory)
        self._beginnings = _Memory(memory)

    def __len__(self) -> int:
        """Returns the number of blocks in the index."""
        return len(self._blocks)

    def __contains__(self, block: int) -> bool:
        """Returns whether the block with the id ``block`` is in the index."""
        return block in self._digests

    def knows(self, digest: bytes) -> bool:
        """Returns whether a block with this hash is in the index."""
        return digest in self._blocks

    def match(self, digests: Sequence[bytes]) -> list[int]:
        """Returns the block ids of the longest prefix of ``digests`` that is in the index."""
        found: list[int] = []
        for digest in digests:
            block = self._blocks.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def insert(self, digest: bytes, block: int) -> None:
        """Adds ``block`` to the index, unless it has another block with the same content."""
        if digest not in self._blocks and block not in self._digests:
            self._blocks[digest] = block
            self._digests[block] = digest

    def begin(self, first_block: Sequence[int]) -> None:
        """Remembers the tokens of a first block that has been inserted under any salt."""
        self._beginnings.add(chain_digest(_NO_SALT, first_block))

    def explain(self, digests: Sequence[bytes], found: int, first_block: Sequence[int]) -> Miss | None:
        """Returns why only the first ``found`` of ``digests`` are in the index, or None if all are. ``first_block`` has
        the tokens of the first block. O(1)."""
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
        """Removes the block if it is in the index, because its content is about to be overwritten."""
        digest = self._digests.pop(block, None)
        if digest is not None:
            del self._blocks[digest]
            self._evicted.add(digest)


class _Memory:
    """The last ``size`` hashes that were added."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        """Returns whether ``digest`` is remembered."""
        return digest in self._digests

    def add(self, digest: bytes) -> None:
        """Remembers ``digest``, and forgets the oldest one if there are more than ``size``."""
        self._digests[digest] = None
        self._digests.move_to_end(digest)
        if len(self._digests) > self._size:
            self._digests.popitem(last=False)
