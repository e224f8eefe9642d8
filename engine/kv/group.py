"""The blocks of one group of layers: pool, prefix index, and each sequence's table of blocks.

In a windowed group a sequence holds its bound of blocks from the start, and keeps the number: for each block that falls
out of the window it takes the next. So a prompt that was admitted can always go on.
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
    shared: int = 0  # the first so many came from others: what is beyond them was set aside for this sequence

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
        while position > self.shape.first_seen(count * self.shape.block_size):
            position -= 1
            if not self.index.knows(digests[position]):
                count = position
        return count

    def cost(self, digests: Sequence[bytes], count: int, tokens: int) -> int:
        """Blocks by which admitting a sequence of ``tokens`` tokens lowers what is available, if the first ``count``
        blocks are known."""
        shared = self._known(digests, count)
        cached = sum(map(self.pool.is_cached, shared))
        return self._fresh(tokens, count) + cached + (len(shared) - cached) * self.pool.cost_of_sharing

    def admit(self, digests: Sequence[bytes], count: int, tokens: int) -> BlockTable:
        """A table for such a sequence. Raises OutOfBlocksError if its cost exceeds what is available."""
        shared = self._known(digests, count)
        self.pool.acquire(shared)  # before allocating, which may evict
        gone = count - len(shared)
        fresh = self.pool.allocate(self._fresh(tokens, count))
        return BlockTable([self.zero_page] * gone + shared + fresh, gone, count)

    def lacks(self, table: BlockTable, start: int, tokens: int) -> int:
        """Blocks that are missing for the sequence, ``tokens`` long by now, to compute from ``start`` on; 0: none."""
        leaving = max(0, self.shape.first_seen(start) - table.gone)
        back = sum(self._comes_back(block) for block in table.held[:leaving])
        copied = self._copied(table, start) and not self.pool.cost_of_sharing
        return max(0, max(0, self._missing(table, start, tokens)) + copied - back - self.pool.available)

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
        missing = self._missing(table, start, tokens)
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

    def cost_of_fork(self, table: BlockTable, computed: int, tokens: int) -> int:
        """Blocks by which such a fork lowers what is available; one that is written later is copied then."""
        count = self.shape.total(computed)
        return self._fresh(tokens, count) + (count - table.gone) * self.pool.cost_of_sharing

    def fork(self, table: BlockTable, computed: int, tokens: int) -> BlockTable:
        """A table for a sequence of ``tokens`` tokens, which shares all blocks in which tokens have been ``computed``.
        Raises OutOfBlocksError if its cost exceeds what is available."""
        count = self.shape.total(computed)
        shared = table.blocks[table.gone : count]
        fresh = self.pool.allocate(self._fresh(tokens, count))
        self.pool.acquire(shared)
        return BlockTable([self.zero_page] * table.gone + shared + fresh, table.gone, count)

    def release(self, table: BlockTable) -> None:
        """Takes all blocks back; indexed ones stay cached."""
        self.pool.release(table.held, self.index.__contains__)

    def commit(self, table: BlockTable, digests: Sequence[bytes], first: int, end: int) -> None:
        """Indexes the blocks from position ``first`` up to ``end``, which have been computed."""
        for position in range(max(first, table.gone), end):
            self.index.insert(digests[position], table.blocks[position])

    def exclusive(self, table: BlockTable) -> int:
        """Blocks that would become available if the table were given up."""
        return sum(map(self._comes_back, table.held))

    def _known(self, digests: Sequence[bytes], count: int) -> list[int]:
        return self.index.match(digests[self.shape.first_seen(count * self.shape.block_size) : count])

    def _fresh(self, tokens: int, count: int) -> int:
        fresh = self.shape.total(tokens) - count
        return fresh if self.shape.bound is None else min(fresh, self.shape.bound)

    def _missing(self, table: BlockTable, start: int, tokens: int) -> int:
        """Blocks beyond the table's end that are wanted. With a window: as many as keep the number of those that are
        the sequence's own."""
        wanted = self.shape.total(tokens)
        if self.shape.bound is not None:
            wanted = min(wanted, max(self.shape.first_seen(start), table.shared) + self.shape.bound)
        return wanted - len(table.blocks)

    def _comes_back(self, block: int) -> bool:
        return self.pool.cost_of_sharing > 0 or self.pool.references(block) == 1

    def _copied(self, table: BlockTable, start: int) -> bool:
        """Whether the token at ``start`` goes into a block that others refer to."""
        position = start // self.shape.block_size
        return position < len(table.blocks) and self.pool.references(table.blocks[position]) > 1
