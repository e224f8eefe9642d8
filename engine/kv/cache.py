"""KV blocks of sequences: groups of layers, each with its pool and prefix index, behind the moves a scheduler makes.

* lacks: how many blocks stand in the way of an admission
* admit: blocks for all that a sequence holds of its tokens, those of a known prefix shared
* prepare: room for what the next step computes, and nothing that it does not see
* fork: a second sequence on the same blocks; who writes into one first gets a copy
* commit: what has been computed becomes known to the index
* release: all blocks back

A model whose layers all see alike has one group; everything is then said of the only one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence as Ordered

from engine.kv.block_group import BlockGroup
from engine.kv.format import BlockCopy
from engine.kv.pool import BlockPool, KVIntegrityError
from engine.kv.prefix import Miss, chain_digest, root_digest
from engine.kv.shape import GroupShape
from engine.sequence import Sequence


class KVCache:
    """Books of all groups; ``version`` names the model and its KV format."""

    def __init__(self, shapes: Ordered[GroupShape], prefix_caching: bool, version: str = "") -> None:
        self.block_size = shapes[0].block_size
        self.groups = tuple(map(BlockGroup, shapes))
        self._prefix_caching = prefix_caching
        self._version = version

    def __repr__(self) -> str:
        return f"KVCache({', '.join(repr(group.pool) for group in self.groups)})"

    @property
    def available(self) -> int:
        """Blocks that every group can give."""
        return min(group.pool.available for group in self.groups)

    @property
    def used(self) -> int:
        """Blocks of all groups that somebody refers to."""
        return sum(group.pool.used for group in self.groups)

    @property
    def tightest(self) -> BlockPool:
        """The pool of which the largest part is taken: who looks for room looks there."""
        return min((group.pool for group in self.groups), key=lambda pool: pool.available / pool.total)

    def needs(self, sequence: Sequence) -> int:
        """Blocks that ``prepare`` takes for a running sequence, in the group that takes most."""
        tables = zip(self.groups, sequence.tables, strict=True)
        return max(group.needs(table, sequence.computed, sequence.room) for group, table in tables)

    def lacks(self, sequence: Sequence, spare: int) -> tuple[int, ...]:
        """Blocks that would have to become available, in each group, before the sequence can be admitted with ``spare``
        left; all 0: it can be now."""
        return self._lacks(sequence, *self._known(sequence), spare)

    def admit(self, sequence: Sequence, spare: int) -> bool:
        """Gives the sequence blocks for its ``room`` if ``spare`` blocks stay available; else changes nothing.

        Sets ``tables`` and ``computed``. At least one token is left to compute: its logits are needed.
        """
        digests, count = self._known(sequence)
        if any(self._lacks(sequence, digests, count, spare)):
            return False
        sequence.tables = [group.admit(digests, count, sequence.room) for group in self.groups]
        sequence.computed = sequence.committed = count * self.block_size
        return True

    def cached_share(self, sequence: Sequence) -> float:
        """Share of a waiting sequence's tokens whose KV is cached now, 0 to 1. Where a group sees everything an
        estimate, from that group alone and in O(log blocks): that a block is known says that those before it are, but
        for rare evictions out of order."""
        if not self._prefix_caching or sequence.scores_prompt:
            return 0.0
        first = self.groups[0]
        if first.shape.window is not None:
            known = self._known(sequence)[1]
        else:
            digests = self._digests(sequence, self._reusable(sequence))
            known = bisect_left(range(len(digests)), True, key=lambda at: not first.index.knows(digests[at]))
        return known * self.block_size / len(sequence.tokens)

    def miss(self, sequence: Sequence) -> Miss | None:
        """Why no more of a sequence that has just been admitted was found; None if all that can be was, or nothing is
        ever looked for."""
        if not self._prefix_caching or sequence.scores_prompt:
            return None
        digests = self._digests(sequence, self._reusable(sequence))
        found, first = sequence.committed // self.block_size, sequence.tokens[: self.block_size]
        index = self.groups[0].index
        if found < len(digests) and index.knows(digests[found]):
            return Miss.EVICTED  # blocks of all groups become known together: a windowed one has lost its own since
        return index.explain(digests, found, first)

    def exclusive(self, sequence: Sequence) -> tuple[int, ...]:
        """Blocks that would become available, in each group, if this sequence gave its own up."""
        return tuple(group.exclusive(table) for group, table in zip(self.groups, sequence.tables, strict=True))

    def prepare(self, sequence: Sequence) -> list[BlockCopy] | None:
        """Makes room for the tokens that are to be computed, and lets go of blocks that none of them sees; None, and
        nothing changed, when there are no blocks left. What comes back is to be copied first."""
        tables = list(zip(self.groups, sequence.tables, strict=True))
        if any(group.lacks(table, sequence.computed, sequence.room) for group, table in tables):
            return None
        pairs = [group.prepare(table, sequence.computed, sequence.room) for group, table in tables]
        return [BlockCopy(number, *pair) for number, pair in enumerate(pairs) if pair is not None]

    def fork(self, parent: Sequence, child: Sequence, spare: int) -> list[BlockCopy] | None:
        """Lets ``child``, whose tokens begin with those of ``parent`` that have been computed, share their blocks, if
        ``spare`` blocks stay available; None, and nothing changed, if not. What comes back is to be copied first: where
        blocks are reserved, none may be missing for a copy later."""
        tables = list(zip(self.groups, parent.tables, strict=True))
        eager = (parent.reserve or child.reserve) and parent.computed % self.block_size > 0
        for group in self.groups:
            if group.cost_of_fork(parent.computed, child.room) + eager + spare > group.pool.available:
                return None
        child.tables = [group.fork(table, parent.computed, child.room) for group, table in tables]
        child.computed, child.committed = parent.computed, parent.committed
        child.drafted = min(parent.drafted, parent.computed)
        if not eager:
            return []
        forked = enumerate(zip(self.groups, child.tables, strict=True))
        return [BlockCopy(number, *group.own(table, child.computed)) for number, (group, table) in forked]

    def commit(self, sequence: Sequence) -> None:
        """Indexes the full blocks that have been computed since the last time."""
        if self._prefix_caching and sequence.computed - sequence.committed >= self.block_size:
            first, end = sequence.committed // self.block_size, sequence.computed // self.block_size
            digests = self._digests(sequence, end)
            for group, table in zip(self.groups, sequence.tables, strict=True):
                group.commit(table, digests, first, end)
                if first == 0:
                    group.index.begin(sequence.tokens[: self.block_size])
            sequence.committed = end * self.block_size

    def release(self, sequence: Sequence) -> None:
        """Takes all blocks back; indexed ones stay cached."""
        for group, table in zip(self.groups, sequence.tables, strict=True):
            group.release(table)
        sequence.tables = []
        sequence.computed = sequence.committed = sequence.drafted = 0

    def disown(self, sequence: Sequence) -> list[list[int]]:
        """The blocks that this sequence alone refers to, by group; their content will not be reused."""
        owned = []
        for group, table in zip(self.groups, sequence.tables, strict=True):
            own = [block for block in table.held if group.pool.references(block) == 1]
            for block in own:
                group.index.forget(block)
            owned.append(own)
        return owned

    def check_integrity(self) -> None:
        """Raises KVIntegrityError if a pool does not balance or a cached block is not indexed."""
        for group in self.groups:
            group.pool.check_integrity()
            if any(group.pool.is_cached(block) and block not in group.index for block in range(group.pool.total)):
                raise KVIntegrityError("a cached block is not in the index")

    def _lacks(self, sequence: Sequence, digests: list[bytes], count: int, spare: int) -> tuple[int, ...]:
        costs = (group.cost(digests, count, sequence.room) for group in self.groups)
        return tuple(max(0, cost + spare - g.pool.available) for cost, g in zip(costs, self.groups, strict=True))

    def _reusable(self, sequence: Sequence) -> int:
        return (len(sequence.tokens) - 1) // self.block_size

    def _known(self, sequence: Sequence) -> tuple[list[bytes], int]:
        """Digests of a sequence's full blocks, and how many of them every group can take up from."""
        if not self._prefix_caching or sequence.scores_prompt:
            return [], 0
        digests = self._digests(sequence, self._reusable(sequence))
        count, agreed = len(digests), 0
        while agreed < len(self.groups) and count:  # until all groups have said the same
            for group in self.groups:
                found = group.longest_known(digests, count)
                agreed = agreed + 1 if found == count else 1
                count = found
        return digests, count

    def _digests(self, sequence: Sequence, count: int) -> list[bytes]:
        """Chained digests of the first ``count`` full blocks; each is computed once in a sequence's life."""
        digests, size = sequence.digests, self.block_size
        parent = digests[-1] if digests else root_digest(sequence.cache_salt, self._version)
        for position in range(len(digests), count):
            parent = chain_digest(parent, sequence.tokens[position * size : (position + 1) * size])
            digests.append(parent)
        return digests[:count]
