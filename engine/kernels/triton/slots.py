"""``Slots``: assigns the rows of the block tables on the device to sequences.

The tables are kept on the device; a step sends only their changes, which for a decoding sequence are one number at
most.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.kv.block_group import BlockTable
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence as SequenceState


@dataclass(slots=True)
class _Row:
    """``sent``: of each group the table whose blocks the device has, and how many of them."""

    slot: int
    sent: list[tuple[BlockTable, int]] = field(default_factory=list)


class Slots:
    """The ``count`` rows, of ``width`` blocks each, in the block tables of ``groups`` KV cache groups. If all rows are
    taken, a new sequence gets the row of the one that has not run for longest; when that runs again, its table is sent
    again."""

    def __init__(self, count: int, width: int, groups: int, block_size: int) -> None:
        self.count = count
        self.width = width
        self._groups = groups
        self._block_size = block_size
        self._rows: OrderedDict[SequenceState, _Row] = OrderedDict()

    def place(self, chunks: Sequence[Chunk]) -> list[int]:
        """Returns the row of each chunk's sequence, and assigns rows to new sequences. Raises ValueError for more
        sequences than rows."""
        if len(chunks) > self.count:
            raise ValueError(f"{len(chunks)} sequences for {self.count} rows")
        for chunk in chunks:
            if chunk.sequence in self._rows:
                self._rows.move_to_end(chunk.sequence)
        for chunk in chunks:
            if chunk.sequence not in self._rows:
                self._rows[chunk.sequence] = _Row(self._free())
        return [self._rows[chunk.sequence].slot for chunk in chunks]

    def changes(self, chunks: Sequence[Chunk]) -> list[NDArray[np.int32]]:
        """Returns, for each group, the changes to write to its table, int32 [2, n]: offsets in the flattened table, and
        block ids.

        A table changes from the block of the chunk's first token on, since that block may be a new copy of a shared
        one. Earlier blocks do not change until they leave the window. The caller calls ``written`` once the device has
        the changes; otherwise they are returned again.
        """
        found = []
        for group in range(self._groups):
            places: list[int] = []
            blocks: list[int] = []
            for chunk in chunks:
                row = self._rows[chunk.sequence]
                first, new = self._unsent(row, chunk, group)
                places += range(row.slot * self.width + first, row.slot * self.width + first + len(new))
                blocks += new
            found.append(np.array([places, blocks], dtype=np.int32))
        return found

    def _unsent(self, row: _Row, chunk: Chunk, group: int) -> tuple[int, list[int]]:
        table = chunk.sequence.tables[group]
        first = table.gone
        if row.sent and row.sent[group][0] is table:
            first = max(first, min(row.sent[group][1], chunk.start // self._block_size))
        return first, table.blocks[first : self._end(chunk)]

    def written(self, chunks: Sequence[Chunk]) -> None:
        """Records that the changes for ``chunks`` are on the device."""
        for chunk in chunks:
            end = self._end(chunk)
            self._rows[chunk.sequence].sent = [(table, end) for table in chunk.sequence.tables[: self._groups]]

    def _end(self, chunk: Chunk) -> int:
        return -(-chunk.end // self._block_size)

    def _free(self) -> int:
        if len(self._rows) < self.count:
            return len(self._rows)
        _, row = self._rows.popitem(last=False)
        return row.slot
