"""The block pool: every KV block is free, used, or cached.

    free    holds nothing of worth
    used    referenced by at least one sequence
    cached  referenced by none, but its content is indexed for reuse; evicted, oldest first, when free ones run out

All operations are O(1) per block.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence


class KVIntegrityError(RuntimeError):
    """The pool's books do not balance: a bug, never load."""


class OutOfBlocksError(RuntimeError):
    """More blocks were asked for than are available; callers check ``available`` first."""


class BlockPool:
    """Reference-counted block ids 0 … total - 1. Calls ``on_evict`` with each cached block that loses its content.

    If ``count_shares`` is set (sliding-window groups), each reference after the first also reserves one free block. A
    sequence that gives up a shared block can therefore always allocate a block of its own.
    """

    def __init__(self, total: int, on_evict: Callable[[int], None], count_shares: bool = False) -> None:
        self.total = total
        self._on_evict = on_evict
        self._count_shares = count_shares
        self._shares = 0  # references but the first of each block
        self._references = [0] * total
        self._free = list(range(total - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first

    def __repr__(self) -> str:
        return f"BlockPool(free={len(self._free)}, used={self.used}, cached={self.cached})"

    @property
    def cached(self) -> int:
        """Blocks kept for reuse that nobody refers to."""
        return len(self._cached)

    @property
    def available(self) -> int:
        """Blocks that ``allocate`` can give."""
        return len(self._free) + len(self._cached) - (self._shares if self._count_shares else 0)

    @property
    def used(self) -> int:
        """Blocks that somebody refers to."""
        return self.total - len(self._free) - len(self._cached)

    @property
    def cost_of_sharing(self) -> int:
        """By how much one more reference to a used block lowers what is available."""
        return 1 if self._count_shares else 0

    def is_cached(self, block: int) -> bool:
        """Whether nobody refers to the block but its content is kept."""
        return block in self._cached

    def references(self, block: int) -> int:
        """How many refer to the block."""
        return self._references[block]

    def allocate(self, count: int) -> list[int]:
        """``count`` blocks with one reference each, evicting when needed. Raises OutOfBlocksError, changing nothing."""
        if count > self.available:
            raise OutOfBlocksError(f"{count} blocks asked for, {self.available} available")
        blocks = [self._take() for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
        return blocks

    def acquire(self, blocks: Iterable[int]) -> None:
        """One more reference to each block, which must be used or cached."""
        for block in blocks:
            if self._references[block] == 0:
                if block not in self._cached:
                    raise KVIntegrityError(f"block {block} is free, it holds nothing to share")
                del self._cached[block]
            else:
                self._shares += 1
            self._references[block] += 1

    def release(self, blocks: Sequence[int], keep: Callable[[int], bool]) -> None:
        """One reference less to each block of one sequence, in the order of the sequence.

        A block that nobody refers to any more stays cached if ``keep`` says so. The tail of the sequence goes first,
        so that it is evicted first: a prefix without its tail is of use, a tail without its prefix is not.
        """
        for block in reversed(blocks):
            if self._references[block] < 1:
                raise KVIntegrityError(f"block {block} is released more often than referenced")
            self._references[block] -= 1
            if self._references[block] > 0:
                self._shares -= 1
            else:
                if keep(block):
                    self._cached[block] = None
                else:
                    self._free.append(block)

    def check_integrity(self) -> None:
        """Raises KVIntegrityError unless free + cached + used = total and each block is exactly one of these."""
        idle = {*self._free, *self._cached}
        if len(idle) != len(self._free) + len(self._cached):
            raise KVIntegrityError("a block is listed twice among free and cached")
        for block, references in enumerate(self._references):
            if references < 0 or (references > 0) == (block in idle):
                raise KVIntegrityError(f"block {block} has {references} references, idle: {block in idle}")
        shares = sum(references - 1 for references in self._references if references > 1)
        if shares != self._shares or self.available < 0:
            raise KVIntegrityError(f"{shares} shares, counted as {self._shares}; {self.available} blocks available")

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        block, _ = self._cached.popitem(last=False)
        self._on_evict(block)
        return block
