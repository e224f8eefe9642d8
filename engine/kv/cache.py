"""``KVCache``: the KV blocks of all sequences, as the scheduler uses them. Each KV cache group, the layers with one
window, has its own block pool and prefix index.

* ``lacks``: how many blocks are missing before a sequence can be admitted.
* ``admit``: allocates the blocks of a sequence; those of a cached prefix are shared.
* ``unready``: which sequences need ``prepare`` before the next step.
* ``prepare``: allocates blocks for the next step, and releases those outside the window.
* ``fork``: makes a second sequence on the same blocks, with copy on write.
* ``commit``: adds computed blocks to the prefix index.
* ``release``: frees the blocks of a sequence.

A model whose layers all have the same window has one group.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from collections.abc import Sequence as Ordered

from engine.kv.block_group import BlockGroup
from engine.kv.format import BlockCopy
from engine.kv.pool import BlockPool, KVIntegrityError
from engine.kv.prefix import Miss, chain_digest, root_digest
from engine.kv.shape import GroupShape
from engine.sequence import Sequence


class KVCache:
    """The KV cache manager of one engine (vLLM's ``KVCacheManager``). ``version`` names the model and its KV format;
    block hashes contain it. ``shapes`` are those of the groups. Without ``prefix_caching``, no block is shared between
    requests."""

    def __init__(self, shapes: Ordered[GroupShape], prefix_caching: bool, version: str = "") -> None:
        self.block_size = shapes[0].block_size
        self.groups = tuple(map(BlockGroup, shapes))
        self._prefix_caching = prefix_caching
        self._version = version

    def __repr__(self) -> str:
        return f"KVCache({', '.join(repr(group.pool) for group in self.groups)})"

    @property
    def available(self) -> int:
        """Number of blocks that can be allocated in the group that has fewest."""
        return min(group.pool.available for group in self.groups)

    @property
    def used(self) -> int:
        """Number of blocks that sequences hold, over all groups."""
        return sum(group.pool.used for group in self.groups)

    @property
    def tightest(self) -> BlockPool:
        """The block pool with the smallest share of available blocks, which limits admission first."""
        return min((group.pool for group in self.groups), key=lambda pool: pool.available / pool.total)

    @property
    def largest(self) -> BlockPool:
        """The block pool with the most blocks, which holds all tokens of a sequence unless all layers have windows."""
        return max((group.pool for group in self.groups), key=lambda pool: pool.total)

    def needs(self, sequence: Sequence) -> int:
        """Returns how many blocks ``prepare`` takes for a running sequence, in the group that takes most."""
        tables = zip(self.groups, sequence.tables, strict=True)
        return max(group.needs(table, sequence.computed, sequence.room) for group, table in tables)

    def lacks(self, sequence: Sequence, spare: int) -> tuple[int, ...]:
        """Returns for each group how many more blocks would have to be available before the sequence can be admitted
        and ``spare`` blocks are left. If all are 0, it can be admitted now."""
        return self._lacks(sequence, *self._known(sequence), spare)

    def hash_prompt(self, sequence: Sequence) -> None:
        """Computes the block hashes by which the sequence's prefix is looked up. Otherwise they are computed when they
        are needed, and those of a long prompt take a while. Reads nothing but the sequence, so it may be called on any
        thread, before the sequence is queued."""
        if self._prefix_caching and not sequence.scores_prompt:
            self._digests(sequence, self._reusable(sequence))

    def admit(self, sequence: Sequence, spare: int) -> bool:
        """Allocates blocks for ``room`` tokens of the sequence if ``spare`` blocks stay available. Returns False and
        changes nothing otherwise.

        Sets ``tables`` and ``computed``. Leaves at least one token to compute, because its logits are needed.
        """
        digests, count = self._known(sequence)
        if any(self._lacks(sequence, digests, count, spare)):
            return False
        sequence.tables = [group.admit(digests, count, sequence.room) for group in self.groups]
        sequence.computed = sequence.committed = count * self.block_size
        return True

    def cached_share(self, sequence: Sequence) -> float:
        """Returns the share of a waiting sequence's tokens whose KV is in the prefix cache, 0 to 1. With a
        full-attention group it is an estimate in O(log blocks) from that group alone: it assumes that all blocks before
        a known block are known, which is wrong only after rare evictions out of order."""
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
        """Returns why no more tokens of a sequence just admitted were found in the prefix cache. None if all that can
        be shared were found, or if it was not searched."""
        if not self._prefix_caching or sequence.scores_prompt:
            return None
        digests = self._digests(sequence, self._reusable(sequence))
        found, first = sequence.committed // self.block_size, sequence.tokens[: self.block_size]
        index = self.groups[0].index
        if found < len(digests) and index.knows(digests[found]):
            return Miss.EVICTED  # groups index blocks together: another group has evicted its block since
        return index.explain(digests, found, first)

    def exclusive(self, sequence: Sequence) -> tuple[int, ...]:
        """Returns for each group how many blocks would become available if the sequence were preempted."""
        return tuple(group.exclusive(table) for group, table in zip(self.groups, sequence.tables, strict=True))

    def unready(self, sequences: Iterable[Sequence]) -> set[Sequence]:
        """Returns those of running ``sequences`` that ``prepare`` may change something for. In most steps of a decode
        it would change nothing."""
        return {one for one in sequences for table in one.tables if one.room > table.ready_for}

    def prepare(self, sequence: Sequence) -> list[BlockCopy] | None:
        """Allocates blocks for the pending tokens of a running sequence, and releases blocks outside the window.
        Returns the block copies to make before the step, or None, with nothing changed, if there are not enough blocks.
        """
        tables = list(zip(self.groups, sequence.tables, strict=True))
        if any(group.lacks(table, sequence.computed, sequence.room) for group, table in tables):
            return None
        pairs = [group.prepare(table, sequence.computed, sequence.room) for group, table in tables]
        return [BlockCopy(number, *pair) for number, pair in enumerate(pairs) if pair is not None]

    def fork(self, parent: Sequence, child: Sequence, spare: int) -> list[BlockCopy] | None:
        """Lets ``child``, whose tokens begin with the computed tokens of ``parent``, share the blocks of these, if
        ``spare`` blocks stay available. Returns the block copies to make before the next step, or None, with nothing
        changed, if there are not enough blocks. With reserved blocks a shared block that is not full is copied at once,
        so that no block can be missing for it later."""
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
        """Adds the blocks that have become full since the last call to the prefix index."""
        if self._prefix_caching and sequence.computed - sequence.committed >= self.block_size:
            first, end = sequence.committed // self.block_size, sequence.computed // self.block_size
            digests = self._digests(sequence, end)
            for group, table in zip(self.groups, sequence.tables, strict=True):
                group.commit(table, digests, first, end)
                if first == 0:
                    group.index.begin(sequence.tokens[: self.block_size])
            sequence.committed = end * self.block_size

    def release(self, sequence: Sequence) -> None:
        """Releases all blocks of the sequence, which then has no computed tokens, but keeps their number. Blocks in the
        prefix index stay cached."""
        sequence.prefilled = sequence.prompt_computed
        for group, table in zip(self.groups, sequence.tables, strict=True):
            group.release(table)
        sequence.tables = []
        sequence.computed = sequence.committed = sequence.drafted = 0

    def disown(self, sequence: Sequence) -> list[list[int]]:
        """Removes the blocks that only this sequence holds from the prefix index, so that their content is not reused.
        Returns their ids by group."""
        owned = []
        for group, table in zip(self.groups, sequence.tables, strict=True):
            own = [block for block in table.held if group.pool.references(block) == 1]
            for block in own:
                group.index.forget(block)
            owned.append(own)
        return owned

    def check_integrity(self) -> None:
        """Raises KVIntegrityError if a pool's bookkeeping is inconsistent or a cached block is not in the prefix
        index."""
        for group in self.groups:
            group.pool.check_integrity()
            if any(group.pool.is_cached(block) and block not in group.index for block in range(group.pool.total)):
                raise KVIntegrityError("a cached block is not in the index")

    def _lacks(self, sequence: Sequence, digests: list[bytes], count: int, spare: int) -> tuple[int, ...]:
        """Returns for each group how many blocks are missing to admit the sequence, whose first ``count`` blocks are
        known, with ``spare`` blocks left."""
        costs = (group.cost(digests, count, sequence.room) for group in self.groups)
        return tuple(max(0, cost + spare - g.pool.available) for cost, g in zip(costs, self.groups, strict=True))

    def _reusable(self, sequence: Sequence) -> int:
        """Returns the number of full blocks that may come from the prefix cache: the last token is always computed."""
        return (len(sequence.tokens) - 1) // self.block_size

    def _known(self, sequence: Sequence) -> tuple[list[bytes], int]:
        """Returns the hashes of a sequence's full blocks, and after how many of them every group can continue from
        cached blocks."""
        if not self._prefix_caching or sequence.scores_prompt:
            return [], 0
        digests = self._digests(sequence, self._reusable(sequence))
        count, agreed = len(digests), 0
        while agreed < len(self.groups) and count:  # until all groups agree on the count
            for group in self.groups:
                found = group.longest_known(digests, count)
                agreed = agreed + 1 if found == count else 1
                count = found
        return digests, count

    def _digests(self, sequence: Sequence, count: int) -> list[bytes]:
        """Returns the chained hashes of the first ``count`` full blocks. Each is computed once per sequence."""
        digests, size = sequence.digests, self.block_size
        parent = digests[-1] if digests else root_digest(sequence.cache_salt, self._version)
        for position in range(len(digests), count):
            parent = chain_digest(parent, sequence.tokens[position * size : (position + 1) * size])
            digests.append(parent)
        return digests[:count]
