"""``PartitionIndex``: the vectors of one partition, by slot."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.cache.row_block import RowBlock
from cluster.cache.row_scan import RowScan


class Found(NamedTuple):
    """A vector near the query. ``similarity`` is the cosine of the vectors in 8 bits."""

    slot: int
    similarity: float


class PartitionIndex:
    """The vectors of one partition: unit vectors in 8 bits. Each has a slot, a number from 0 that the caller chooses.

    They are the first rows of some blocks; a removed one is replaced by the last. ``scan`` searches them. ``places``
    has, by slot, the row of each vector: the index has one for all partitions, since each slot is in one of them.
    """

    __slots__ = ("_addresses", "_blocks", "_places", "_scan", "_slots")

    def __init__(self, scan: RowScan, places: array[int]) -> None:
        self._scan = scan
        self._places = places
        self._slots = array("i")  # by row
        self._blocks: list[RowBlock] = [RowBlock(1, scan.dimensions, 0)]
        self._addresses = np.empty((0, 4), np.uint64)
        self._note_addresses()

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, slot: int, vector: NDArray[np.int8]) -> None:
        """Adds a vector, int8 [dimensions], under a slot that the partition does not have."""
        self.add_many([slot], vector[None])

    def add_many(self, slots: Sequence[int], vectors: NDArray[np.int8]) -> None:
        """Adds vectors, int8 [n, dimensions], under new slots."""
        done = 0
        while done < len(slots):
            row = len(self._slots)
            block, first = self._place(row)
            many = min(len(slots) - done, len(block.codes) - first)
            codes = vectors[done : done + many]
            block.put(first, codes, self._scan.bits(codes) if block.has_bits else None)
            for slot in slots[done : done + many]:
                self._places[slot] = len(self._slots)
                self._slots.append(slot)
            done += many

    def remove(self, slot: int) -> None:
        """Removes the vector of a slot, which the partition has."""
        row = self._places[slot]
        last = self._slots.pop()
        if last != slot:
            room = len(self._blocks[0].codes)
            end = len(self._slots)
            self._blocks[row // room].copy_row(row % room, self._blocks[end // room], end % room)
            self._slots[row] = last
            self._places[last] = row
        self._give_room_back()

    def search(self, vector: NDArray[np.int8], count: int) -> list[Found]:
        """Returns at most ``count`` vectors by their cosine with ``vector`` [dimensions], the highest first."""
        if not self._slots:
            return []
        rows, cosines = self._scan.nearest(self._blocks, self._addresses, len(self._slots), vector, count)
        pairs = zip(rows.tolist(), cosines.tolist(), strict=True)
        return [Found(self._slots[row], cosine) for row, cosine in pairs]

    def _give_room_back(self) -> None:
        rows, room, blocks = len(self._slots), len(self._blocks[0].codes), len(self._blocks)
        if blocks > 1 and rows <= (blocks - 1) * room - room // 2:
            self._blocks.pop()  # the last is empty, and half of the one before
        elif blocks == 1 and room > 1 and rows <= room // 4:
            self._resize(room // 2)
        else:
            return
        self._note_addresses()

    def _place(self, row: int) -> tuple[RowBlock, int]:
        """Returns the block that has room for ``row``, the first that is free, and its place there."""
        room = len(self._blocks[0].codes)
        if row == len(self._blocks) * room:
            if room < self._scan.sizes.block:
                self._resize(2 * room)
            else:
                self._blocks.append(RowBlock(room, self._scan.dimensions, self._scan.bits.words))
            self._note_addresses()
        room = len(self._blocks[0].codes)
        return self._blocks[row // room], row % room

    def _resize(self, room: int) -> None:
        """Makes room for ``room`` rows in the only block. Beyond what is compared as a whole, rows have sign bits."""
        former, rows, scan = self._blocks[0], len(self._slots), self._scan
        block = RowBlock(room, scan.dimensions, scan.bits.words if room > scan.sizes.exact else 0)
        block.copy(former, rows)
        if block.has_bits and not former.has_bits:
            block.put(0, former.codes[:rows], scan.bits(former.codes[:rows]))
        self._blocks = [block]

    def _note_addresses(self) -> None:
        self._addresses = np.array([block.addresses for block in self._blocks], np.uint64)
