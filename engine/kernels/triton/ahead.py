"""Steps that are launched ahead: before the host has read the tokens that the step before has sampled.

A decoding sequence will most likely continue with the token that is being sampled. The device has that token, and the
host does not need it. So the next step is launched at once, and it already runs when the engine asks for it. If a
sequence has ended by then, its row is computed in vain. The keys and values of such a row are never read: they are
written after the end of its sequence, in a block of its own, and the block's next owner overwrites them later in the
device's order of work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import is_
from typing import Generic, TypeVar

from engine.kv.block_group import BlockTable
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence as SequenceState

Launch = TypeVar("Launch")


def following(chunk: Chunk, block_size: int, context_length: int) -> Chunk | None:
    """Returns the chunk of one token after ``chunk``; None if ``chunk`` does not sample, the answer has reached its
    maximum length, or its blocks have no room for the token."""
    sequence = chunk.sequence
    more = chunk.end + 1 < min(context_length, sequence.prompt_length + sequence.max_tokens)
    room = all(chunk.end < len(table.blocks) * block_size for table in sequence.tables)
    return Chunk(sequence, chunk.end, 1) if chunk.samples and more and room else None


@dataclass(frozen=True, slots=True, eq=False)
class _Expected:
    """A chunk of one token, and which blocks that goes to."""

    start: int
    tables: tuple[BlockTable, ...]
    blocks: tuple[int, ...]

    @classmethod
    def of(cls, chunk: Chunk, block_size: int) -> _Expected:
        tables = tuple(chunk.sequence.tables)
        return cls(chunk.start, tables, tuple(table.blocks[chunk.start // block_size] for table in tables))

    def is_that_of(self, other: _Expected) -> bool:
        """Returns whether both have the same tables, start and blocks. Tables are compared by identity, since two may
        hold the same ids by chance."""
        same = len(self.tables) == len(other.tables) and all(map(is_, self.tables, other.tables))
        return same and (self.start, self.blocks) == (other.start, other.blocks)


@dataclass(frozen=True, slots=True)
class Ahead(Generic[Launch]):
    """A step that was launched ahead, and the positions and blocks of its sequences at launch."""

    launch: Launch
    expected: dict[SequenceState, _Expected]
    block_size: int

    @classmethod
    def of(cls, launch: Launch, chunks: Sequence[Chunk], block_size: int) -> Ahead[Launch]:
        """Returns the record of ``launch``, in which ``chunks``, of one token each, were launched."""
        return cls(launch, {chunk.sequence: _Expected.of(chunk, block_size) for chunk in chunks}, block_size)

    def covers(self, chunk: Chunk) -> bool:
        """Returns whether the launched step has computed ``chunk``: the same token in the same blocks."""
        expected = self.expected.get(chunk.sequence)
        if expected is None or chunk.length != 1 or chunk.draft:
            return False
        return _Expected.of(chunk, self.block_size).is_that_of(expected)
