"""Which row of the device's block tables is whose.

Tables live on the device; a step sends what has changed in them, which for a decoding sequence is one number.
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
    """``count`` rows, of ``width`` blocks each, in the tables of each of so many ``groups`` of layers. Whoever has not
    run for longest loses its row to a newcomer; should it come back, its table is sent again."""

    def __init__(self, count: int, width: int, groups: int, block_size: int) -> None:
        self.count = count
        self.width = width
        self._groups = groups
        self._block_size = block_size
        self._rows: OrderedDict[SequenceState, _Row] = OrderedDict()

    def place(self, chunks: Sequence[Chunk]) -> list[int]:
        """The row of each chunk's sequence. Raises ValueError for more sequences than rows."""
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
        """For each group what is to be written to its tables, [2, n]: places, counted through all rows, and blocks.

        A table changes from the block on into which the chunk's first token goes: that block may be a new copy of one
        that was shared. What lies before it stays, and is let go of unread once no query sees it. To be followed by
        ``written``, once the device has them; else they are told again.
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
        """What ``changes`` told of these chunks is on the device."""
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
