"""The blocks of one KV cache group: its block pool, its prefix index, and the block tables of sequences.

In a sliding-window group a sequence allocates the most blocks that it can ever need (``GroupShape.bound``) at
admission, and takes a new block for each one that leaves the window. Blocks that it shares with others count against
this number, and in the pool's bookkeeping too. So an admitted prompt never runs out of blocks.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.kv.pool import BlockPool
from engine.kv.prefix import PrefixIndex
from engine.kv.shape import GroupShape


@dataclass(slots=True)
class BlockTable:
    """The block table of one sequence: block ids in order of position. The first ``gone`` positions have left the
    window; they hold the id of the zero page. While the sequence has at most ``ready_for`` tokens, its next step needs
    no ``prepare``."""

    blocks: list[int] = field(default_factory=list)
    gone: int = 0
    ready_for: int = 0
    _packed: array[int] | None = field(init=False, default=None, compare=False, repr=False)

    @property
    def held(self) -> list[int]:
        """The ids of the blocks that the sequence holds, in order of position."""
        return self.blocks[self.gone :]

    @property
    def address(self) -> int:
        """The memory address of the block ids, as int32, for the compiled kernels. It is valid until the next
        ``changed``."""
        if self._packed is None:
            self._packed = array("i", self.blocks)
        return self._packed.buffer_info()[0]

    def changed(self, ready_for: int) -> None:
        """Records that the blocks, or the sequences that share them, have changed, so that ``address`` is no longer
        valid. ``ready_for``: up to this number of tokens the next step needs no ``prepare``; 0: it always does."""
        self.ready_for = ready_for
        self._packed = None


class BlockGroup:
    """The bookkeeping of one KV cache group (vLLM's ``SingleTypeKVCacheManager``). Its block ids mean nothing in other
    groups."""

    def __init__(self, shape: GroupShape) -> None:
        self.shape = shape
        self.index = PrefixIndex(memory=shape.blocks)
        self.pool = BlockPool(shape.blocks, self.index.forget, count_shares=shape.window is not None)

    @property
    def zero_page(self) -> int:
        """Id of a page that is never written: one more than the pool's largest id."""
        return self.shape.blocks

    def longest_known(self, digests: Sequence[bytes], most: int) -> int:
        """Returns the largest number of leading blocks, at most ``most``, such that every block of them that the next
        query attends to is in the prefix index. ``digests`` are the hashes of the sequence's blocks, in order of
        position."""
        if self.shape.window is None:
            return len(self.index.match(digests[:most]))
        count = position = most
        while position > self._seen_after(count):
            position -= 1
            if not self.index.knows(digests[position]):
                count = position
        return count

    def cost(self, digests: Sequence[bytes], count: int, tokens: int) -> int:
        """Returns by how many the available blocks decrease when a sequence of ``tokens`` tokens is admitted whose
        first ``count`` blocks are in the prefix index. ``digests`` are the hashes of the sequence's blocks, in order of
        position."""
        gone = self._seen_after(count)
        shared = self.index.match(digests[gone:count])
        cached = sum(map(self.pool.is_cached, shared))
        return self._end(gone, tokens) - count + cached + (len(shared) - cached) * self.pool.cost_of_sharing

    def admit(self, digests: Sequence[bytes], count: int, tokens: int) -> BlockTable:
        """Allocates the block table of a sequence of ``tokens`` tokens, sharing its first ``count`` blocks, which are
        in the prefix index. Raises OutOfBlocksError if its cost exceeds the available blocks."""
        gone = self._seen_after(count)
        shared = self.index.match(digests[gone:count])
        self.pool.acquire(shared)  # before allocating, which may evict
        fresh = self.pool.allocate(self._end(gone, tokens) - count)
        return BlockTable([self.zero_page] * gone + shared + fresh, gone)

    def lacks(self, table: BlockTable, start: int, tokens: int) -> int:
        """Returns how many more blocks would have to be available before a sequence, now ``tokens`` tokens long, can
        compute from position ``start`` on."""
        return max(0, self.needs(table, start, tokens) - self.pool.available)

    def needs(self, table: BlockTable, start: int, tokens: int) -> int:
        """Returns by how many ``prepare`` decreases the available blocks; those that leave the window are subtracted.
        The sequence has ``tokens`` tokens and is computed from position ``start`` on."""
        first = max(table.gone, self.shape.first_seen(start))
        missing = max(0, self._end(first, tokens) - len(table.blocks))
        copied = self._copied(table, start) and not self.pool.cost_of_sharing
        back = (first - table.gone) * self.pool.cost_of_sharing  # blocks are given back in sliding-window groups only
        return max(0, missing + copied - back)

    def prepare(self, table: BlockTable, start: int, tokens: int) -> tuple[int, int] | None:
        """Releases blocks that a query at position ``start`` does not attend to, and allocates blocks up to the last
        token, or the bound of a window.

        A block that others refer to must not be written (copy on write). If ``start`` is in such a block, the sequence
        gets a new block instead. Then returns the ids of the old and the new block, whose content is to be copied
        before the step.
        """
        first = self.shape.first_seen(start)
        if first > table.gone:
            self.pool.release(table.blocks[table.gone : first], self.index.__contains__)
            table.blocks[table.gone : first] = [self.zero_page] * (first - table.gone)
            table.gone = first
        missing = self._end(table.gone, tokens) - len(table.blocks)
        if missing > 0:
            table.blocks += self.pool.allocate(missing)
        copy = self.own(table, start) if self._copied(table, start) else None
        ready_for = len(table.blocks) * self.shape.block_size
        if self.shape.window is not None:  # until the next block leaves it
            ready_for = min(ready_for, (table.gone + 1) * self.shape.block_size + self.shape.window - 1)
        table.changed(ready_for)
        return copy

    def own(self, table: BlockTable, start: int) -> tuple[int, int]:
        """Replaces the shared block that contains the position ``start`` by a new one. Returns the ids of the old and
        the new block."""
        position = start // self.shape.block_size
        old = table.blocks[position]
        self.pool.release([old], self.index.__contains__)  # other sequences still refer to it
        [new] = self.pool.allocate(1)
        table.blocks[position] = new
        table.changed(ready_for=0)
        return old, new

    def cost_of_fork(self, computed: int, tokens: int) -> int:
        """Returns by how many the available blocks decrease when a sequence is forked after ``computed`` tokens that is
        to hold ``tokens`` tokens. A later copy on write is not included."""
        gone, count = self.shape.first_seen(computed), self.shape.total(computed)
        return self._end(gone, tokens) - count + (count - gone) * self.pool.cost_of_sharing

    def fork(self, table: BlockTable, computed: int, tokens: int) -> BlockTable:
        """Allocates a block table for a sequence of ``tokens`` tokens that shares the first ``computed`` tokens with
        ``table``, as far as later queries attend to them. Raises OutOfBlocksError if its cost exceeds the available
        blocks."""
        gone, count = self.shape.first_seen(computed), self.shape.total(computed)
        shared = table.blocks[gone:count]
        self.pool.acquire(shared)
        table.changed(ready_for=0)  # the block of its next token may be shared now
        fresh = self.pool.allocate(self._end(gone, tokens) - count)
        return BlockTable([self.zero_page] * gone + shared + fresh, gone)

    def release(self, table: BlockTable) -> None:
        """Releases all blocks of a sequence. Blocks in the prefix index stay cached."""
        self.pool.release(table.held, self.index.__contains__)

    def commit(self, table: BlockTable, digests: Sequence[bytes], first: int, end: int) -> None:
        """Adds the computed blocks at positions ``first`` to ``end`` - 1 to the prefix index. ``digests`` are the
        hashes of the sequence's blocks, in order of position."""
        for position in range(max(first, table.gone), end):
            self.index.insert(digests[position], table.blocks[position])

    def exclusive(self, table: BlockTable) -> int:
        """Returns how many blocks would become available if the sequence released its table."""
        if self.pool.cost_of_sharing:
            return len(table.held)
        return sum(self.pool.references(block) == 1 for block in table.held)

    def _seen_after(self, count: int) -> int:
        """Returns the position of the first block that a query after ``count`` full blocks attends to."""
        return self.shape.first_seen(count * self.shape.block_size)

    def _end(self, gone: int, tokens: int) -> int:
        """Returns the length of a table for ``tokens`` tokens, of which the first ``gone`` blocks have left the
        window."""
        total = self.shape.total(tokens)
        return total if self.shape.bound is None else min(total, gone + self.shape.bound)

    def _copied(self, table: BlockTable, start: int) -> bool:
        """Returns whether the token at ``start`` would be written into a block that others refer to."""
        position = start // self.shape.block_size
        return position < len(table.blocks) and self.pool.references(table.blocks[position]) > 1
