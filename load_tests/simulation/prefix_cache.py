"""``PrefixCaches``: which prefix blocks each replica has, and which replicas have a block."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

MAX_HOLDERS = 4  # replicas that have the longest prefix and are looked at for a request


class PrefixCaches:
    """An LRU cache of block ids for each replica, and an index from blocks to replicas. Replicas are numbers."""

    def __init__(self) -> None:
        self._blocks: dict[int, OrderedDict[int, None]] = {}
        self._holders: dict[int, dict[int, None]] = {}

    def matched(self, replica: int, chain: Sequence[int]) -> int:
        """Returns the number of blocks, from the start of ``chain``, that the replica has."""
        own = self._blocks.get(replica)
        if not own:
            return 0
        known = 0
        for block in chain:
            if block not in own:
                break
            known += 1
        return known

    def remember(self, replica: int, chain: Sequence[int], capacity: int) -> None:
        """Records that the replica has ``chain``, and evicts the blocks used longest ago beyond ``capacity``."""
        own = self._blocks.setdefault(replica, OrderedDict())
        for block in reversed(chain):  # so that the start of a prompt, which others share, is evicted last
            if block in own:
                own.move_to_end(block)
            else:
                own[block] = None
                self._holders.setdefault(block, {})[replica] = None
        while len(own) > capacity:
            self._forget(own.popitem(last=False)[0], replica)

    def holders(self, chain: Sequence[int]) -> Iterator[int]:
        """Yields up to MAX_HOLDERS replicas that have the longest known prefix of ``chain``, the latest first."""
        found: dict[int, None] = {}
        for block in chain:
            holding = self._holders.get(block)
            if holding is None:
                break
            found = holding
        for count, replica in enumerate(reversed(found)):
            if count == MAX_HOLDERS:
                return
            yield replica

    def drop(self, replica: int) -> None:
        """Forgets a replica that has ended."""
        for block in self._blocks.pop(replica, ()):
            self._forget(block, replica)

    def _forget(self, block: int, replica: int) -> None:
        holding = self._holders[block]
        del holding[replica]
        if not holding:
            del self._holders[block]
