"""The block pool: every KV block is free, used, or cached.

    free    its content is of no use
    used    referenced by at least one sequence
    cached  referenced by none, but in the prefix index; evicted, oldest first, when no free block is left

All operations are O(1) per block.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence


class KVIntegrityError(RuntimeError):
    """The bookkeeping of the KV cache is inconsistent. The cause is a bug, never load."""


class OutOfBlocksError(RuntimeError):
    """More blocks were requested than are available. Callers check ``available`` first."""


class BlockPool:
    """A pool of reference-counted blocks with the ids 0 to ``total`` - 1 (vLLM's ``BlockPool``). Calls ``on_evict``
    with each cached block that is evicted.

    If ``count_shares`` is set (sliding-window groups), each reference after the first also reserves one free block. A
    sequence that gives up a shared block can therefore always allocate a block of its own.
    """

    def __init__(self, total: int, on_evict: Callable[[int], None], count_shares: bool = False) -> None:
        self.total = total
        self._on_evict = on_evict
        self._count_shares = count_shares
        self._shares = 0  # references beyond the first of each block, over all blocks
        self._references = [0] * total
        self._free = list(range(total - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first

    def __repr__(self) -> str:
        return f"BlockPool(free={len(self._free)}, used={self.used}, cached={self.cached})"

    @property
    def cached(self) -> int:
        """Number of blocks that no sequence refers to and that are kept for reuse."""
        return len(self._cached)

    @property
    def available(self) -> int:
        """Number of blocks that ``allocate`` can return, evicting cached ones."""
        return len(self._free) + len(self._cached) - (self._shares if self._count_shares else 0)

    @property
    def used(self) -> int:
        """Number of blocks that sequences refer to."""
        return self.total - len(self._free) - len(self._cached)

    @property
    def cost_of_sharing(self) -> int:
        """The number by which one more reference to a used block decreases ``available``: 1 if shares are counted, else
        0."""
        return 1 if self._count_shares else 0

    def is_cached(self, block: int) -> bool:
        """Returns whether no sequence refers to the block and it is kept for reuse."""
        return block in self._cached

    def references(self, block: int) -> int:
        """Returns the number of references to the block."""
        return self._references[block]

    def allocate(self, count: int) -> list[int]:
        """Returns ``count`` blocks with one reference each, evicting cached blocks if needed. Raises OutOfBlocksError,
        with nothing changed, if fewer are available."""
        if count > self.available:
            raise OutOfBlocksError(f"{count} blocks asked for, {self.available} available")
        blocks = [self._take() for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
        return blocks

    def acquire(self, blocks: Iterable[int]) -> None:
        """Adds a reference to each of ``blocks``. Raises KVIntegrityError for a free block."""
        for block in blocks:
            if self._references[block] == 0:
                if block not in self._cached:
                    raise KVIntegrityError(f"block {block} is free, it holds nothing to share")
                del self._cached[block]
            else:
                self._shares += 1
            self._references[block] += 1

    def release(self, blocks: Sequence[int], keep: Callable[[int], bool]) -> None:
        """Removes a reference from each of the ``blocks`` of one sequence, which are in the order of their positions.

        A block without references stays cached if ``keep`` returns True for it, else it becomes free. The last blocks
        are released first, so that they are evicted first: a cached prefix is of use without its end, but not the end
        without the prefix. Raises KVIntegrityError for a block without references.
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
        """Raises KVIntegrityError unless each block is exactly one of free, used and cached, and the shares are counted
        correctly."""
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
        """Returns a free block, or evicts the cached block that was released first."""
        if self._free:
            return self._free.pop()
        block, _ = self._cached.popitem(last=False)
        self._on_evict(block)
        return block
