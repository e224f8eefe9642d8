"""The blocks of one group of layers: pool, prefix index, and each sequence's table of blocks.

In a windowed group a sequence holds its bound of blocks from the start, and keeps the number: for each block that falls
out of the window it takes the next. What it shares with others counts as its own, in the books of the pool too. So a
prompt that was admitted can always go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.kv.pool import BlockPool
from engine.kv.prefix import PrefixIndex
from engine.kv.shape import GroupShape


@dataclass(slots=True)
class BlockTable:
    """Blocks of one sequence by position; the first ``gone`` are no longer its own, and read as the page of zeros."""

    blocks: list[int] = field(default_factory=list)
    gone: int = 0

    @property
    def held(self) -> list[int]:
        """The blocks it holds, in order."""
        return self.blocks[self.gone :]


class BlockGroup:
    """Books of one group; the ids of its blocks mean nothing in another."""

    def __init__(self, shape: GroupShape) -> None:
        self.shape = shape
        self.index = PrefixIndex(memory=shape.blocks)
        self.pool = BlockPool(shape.blocks, self.index.forget, count_shares=shape.window is not None)

    @property
    def zero_page(self) -> int:
        """Id of a page that is never written: one more than the pool owns."""
        return self.shape.blocks

    def longest_known(self, digests: Sequence[bytes], most: int) -> int:
        """The largest number of blocks, ``most`` at most, after which all that the next query sees is cached."""
        if self.shape.window is None:
            return len(self.index.match(digests[:most]))
        count = position = most
        while position > self._seen_after(count):
            position -= 1
            if not self.index.knows(digests[position]):
                count = position
        return count

    def cost(self, digests: Sequence[bytes], count: int, tokens: int) -> int:
        """Blocks by which admitting a sequence of ``tokens`` tokens lowers what is available, if the first ``count``
        blocks are known."""
        gone = self._seen_after(count)
        shared = self.index.match(digests[gone:count])
        cached = sum(map(self.pool.is_cached, shared))
        return self._end(gone, tokens) - count + cached + (len(shared) - cached) * self.pool.cost_of_sharing

    def admit(self, digests: Sequence[bytes], count: int, tokens: int) -> BlockTable:
        """A table for such a sequence. Raises OutOfBlocksError if its cost exceeds what is available."""
        gone = self._seen_after(count)
        shared = self.index.match(digests[gone:count])
        self.pool.acquire(shared)  # before allocating, which may evict
        fresh = self.pool.allocate(self._end(gone, tokens) - count)
        return BlockTable([self.zero_page] * gone + shared + fresh, gone)

    def lacks(self, table: BlockTable, start: int, tokens: int) -> int:
        """Blocks that are missing for the sequence, ``tokens`` long by now, to compute from ``start`` on; 0: none."""
        return max(0, self.needs(table, start, tokens) - self.pool.available)

    def needs(self, table: BlockTable, start: int, tokens: int) -> int:
        """Blocks that become taken when the sequence is prepared for that; those that it lets go of are taken off."""
        first = max(table.gone, self.shape.first_seen(start))
        missing = max(0, self._end(first, tokens) - len(table.blocks))
        copied = self._copied(table, start) and not self.pool.cost_of_sharing
        back = (first - table.gone) * self.pool.cost_of_sharing  # only windows let anything go
        return max(0, missing + copied - back)

    def prepare(self, table: BlockTable, start: int, tokens: int) -> tuple[int, int] | None:
        """Lets go of what a query at ``start`` does not see, and takes blocks up to the last token, or the bound.

        A block that others refer to must not be written: the sequence gets one of its own for it, and the pair of old
        and new comes back, whose contents are to be copied before the step.
        """
        first = self.shape.first_seen(start)
        if first > table.gone:
            self.pool.release(table.blocks[table.gone : first], self.index.__contains__)
            table.blocks[table.gone : first] = [self.zero_page] * (first - table.gone)
            table.gone = first
        missing = self._end(table.gone, tokens) - len(table.blocks)
        if missing > 0:
            table.blocks += self.pool.allocate(missing)
        return self.own(table, start) if self._copied(table, start) else None

    def own(self, table: BlockTable, start: int) -> tuple[int, int]:
        """Gives the sequence a block of its own in place of the shared one in which ``start`` lies; old and new."""
        position = start // self.shape.block_size
        old = table.blocks[position]
        self.pool.release([old], self.index.__contains__)  # others keep it
        [new] = self.pool.allocate(1)
        table.blocks[position] = new
        return old, new

    def cost_of_fork(self, computed: int, tokens: int) -> int:
        """Blocks by which such a fork lowers what is available; one that is written later is copied then."""
        gone, count = self.shape.first_seen(computed), self.shape.total(computed)
        return self._end(gone, tokens) - count + (count - gone) * self.pool.cost_of_sharing

    def fork(self, table: BlockTable, computed: int, tokens: int) -> BlockTable:
        """A table for a sequence of ``tokens`` tokens, which shares the blocks that a query after the ``computed``
        tokens sees. Raises OutOfBlocksError if its cost exceeds what is available."""
        gone, count = self.shape.first_seen(computed), self.shape.total(computed)
        shared = table.blocks[gone:count]
        self.pool.acquire(shared)
        fresh = self.pool.allocate(self._end(gone, tokens) - count)
        return BlockTable([self.zero_page] * gone + shared + fresh, gone)

    def release(self, table: BlockTable) -> None:
        """Takes all blocks back; indexed ones stay cached."""
        self.pool.release(table.held, self.index.__contains__)

    def commit(self, table: BlockTable, digests: Sequence[bytes], first: int, end: int) -> None:
        """Indexes the blocks from position ``first`` up to ``end``, which have been computed."""
        for position in range(max(first, table.gone), end):
            self.index.insert(digests[position], table.blocks[position])

    def exclusive(self, table: BlockTable) -> int:
        """Blocks that would become available if the table were given up."""
        if self.pool.cost_of_sharing:
            return len(table.held)
        return sum(self.pool.references(block) == 1 for block in table.held)

    def _seen_after(self, count: int) -> int:
        """Position of the first block that a query after ``count`` full blocks sees."""
        return self.shape.first_seen(count * self.shape.block_size)

    def _end(self, gone: int, tokens: int) -> int:
        """Length of a table for ``tokens`` tokens whose first ``gone`` blocks are: with a window, the bound after
        them."""
        total = self.shape.total(tokens)
        return total if self.shape.bound is None else min(total, gone + self.shape.bound)

    def _copied(self, table: BlockTable, start: int) -> bool:
        """Whether the token at ``start`` goes into a block that others refer to."""
        position = start // self.shape.block_size
        return position < len(table.blocks) and self.pool.references(table.blocks[position]) > 1
