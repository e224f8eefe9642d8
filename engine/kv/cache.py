"""KV blocks of sequences: pool and prefix index behind the moves a scheduler makes.

* lacks: how many blocks stand in the way of an admission
* admit: blocks for all tokens of a sequence, those of a known prefix shared
* grow: room for one more token
* commit: what has been computed becomes known to the index
* release: all blocks back
"""

from __future__ import annotations

from bisect import bisect_left

from engine.kv.pool import BlockPool, KVIntegrityError
from engine.kv.prefix import Miss, PrefixIndex, chain_digest, root_digest
from engine.sequence import Sequence


class KVCache:
    """Books of ``num_blocks`` blocks of ``block_size`` tokens; ``version`` names the model and its KV format."""

    def __init__(self, num_blocks: int, block_size: int, prefix_caching: bool, version: str = "") -> None:
        self.block_size = block_size
        self._prefix_caching = prefix_caching
        self._version = version
        self._index = PrefixIndex(memory=num_blocks)
        self.pool = BlockPool(num_blocks, self._index.forget)

    def lacks(self, sequence: Sequence, spare: int) -> int:
        """Blocks that would have to become available before the sequence can be admitted; 0: it can be now."""
        return max(0, self._cost(sequence, self._known_prefix(sequence)) + spare - self.pool.available)

    def admit(self, sequence: Sequence, spare: int) -> bool:
        """Gives the sequence blocks for its ``room`` if ``spare`` blocks stay available; else changes nothing.

        Sets ``blocks`` and ``computed``. At least one token is left to compute: its logits are needed.
        """
        shared = self._known_prefix(sequence)
        if self._cost(sequence, shared) + spare > self.pool.available:
            return False
        fresh = self._blocks_for(sequence.room) - len(shared)
        self.pool.acquire(shared)  # before allocating, which may evict
        sequence.blocks = shared + self.pool.allocate(fresh)
        sequence.computed = sequence.committed = len(shared) * self.block_size
        return True

    def cached_share(self, sequence: Sequence) -> float:
        """Share of a waiting sequence's tokens whose KV is cached now, 0 to 1. An estimate, in O(log blocks): that a
        block is known says that those before it are, but for rare evictions out of order."""
        if not self._prefix_caching:
            return 0.0
        digests = self._digests(sequence, (len(sequence.tokens) - 1) // self.block_size)
        known = bisect_left(range(len(digests)), True, key=lambda position: not self._index.knows(digests[position]))
        return known * self.block_size / len(sequence.tokens)

    def miss(self, sequence: Sequence) -> Miss | None:
        """Why no more of a sequence that has just been admitted was found; None if all that can be was, or nothing is
        ever looked for."""
        if not self._prefix_caching:
            return None
        digests = self._digests(sequence, (len(sequence.tokens) - 1) // self.block_size)
        return self._index.explain(digests, sequence.committed // self.block_size, sequence.tokens[: self.block_size])

    def exclusive(self, sequence: Sequence) -> int:
        """Blocks that would become available if this sequence gave its own up."""
        return sum(self.pool.references(block) == 1 for block in sequence.blocks)

    def grow(self, sequence: Sequence) -> bool:
        """Makes room for the next token; False when there is no block left."""
        missing = self._blocks_for(len(sequence.tokens)) - len(sequence.blocks)
        if missing > self.pool.available:
            return False
        if missing > 0:
            sequence.blocks += self.pool.allocate(missing)
        return True

    def commit(self, sequence: Sequence) -> None:
        """Indexes the full blocks that have been computed since the last time."""
        if self._prefix_caching and sequence.computed - sequence.committed >= self.block_size:
            full = sequence.computed // self.block_size
            digests = self._digests(sequence, full)
            for position in range(sequence.committed // self.block_size, full):
                self._index.insert(digests[position], sequence.blocks[position])
            if sequence.committed == 0:
                self._index.begin(sequence.tokens[: self.block_size])
            sequence.committed = full * self.block_size

    def release(self, sequence: Sequence) -> None:
        """Takes all blocks back; indexed ones stay cached."""
        self.pool.release(sequence.blocks, self._index.__contains__)
        sequence.blocks = []
        sequence.computed = sequence.committed = 0

    def disown(self, sequence: Sequence) -> list[int]:
        """The blocks that this sequence alone refers to; their content will not be reused."""
        own = [block for block in sequence.blocks if self.pool.references(block) == 1]
        for block in own:
            self._index.forget(block)
        return own

    def check_integrity(self) -> None:
        """Raises KVIntegrityError if the pool does not balance or a cached block is not indexed."""
        self.pool.check_integrity()
        if any(self.pool.is_cached(block) and block not in self._index for block in range(self.pool.total)):
            raise KVIntegrityError("a cached block is not in the index")

    def _cost(self, sequence: Sequence, shared: list[int]) -> int:
        """Blocks by which an admission lowers what is available."""
        return self._blocks_for(sequence.room) - len(shared) + sum(map(self.pool.is_cached, shared))

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_size)

    def _known_prefix(self, sequence: Sequence) -> list[int]:
        if not self._prefix_caching:
            return []
        reusable = (len(sequence.tokens) - 1) // self.block_size
        return self._index.match(self._digests(sequence, reusable))

    def _digests(self, sequence: Sequence, count: int) -> list[bytes]:
        """Chained digests of the first ``count`` full blocks; each is computed once in a sequence's life."""
        digests, size = sequence.digests, self.block_size
        parent = digests[-1] if digests else root_digest(sequence.cache_salt, self._version)
        for position in range(len(digests), count):
            parent = chain_digest(parent, sequence.tokens[position * size : (position + 1) * size])
            digests.append(parent)
        return digests[:count]
