"""The messages between rank 0 and the other ranks. They consist of plain numbers, and of a block table only the changes
since the last step are sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.api import SamplingParams
from engine.config import EngineConfig
from engine.kv.block_group import BlockTable
from engine.kv.format import BlockCopy
from engine.scheduler.step_plan import Chunk
from engine.sequence import Sequence as SequenceState


@dataclass(frozen=True, slots=True)
class Orders:
    """The first message to a worker: the settings, and the file through which the ranks find each other."""

    config: EngineConfig
    meeting: str  # path of a file
    limit_s: float  # of one operation between ranks


@dataclass(frozen=True, slots=True)
class Run:
    """The command to run one step."""

    rows: list[ChunkRow]


@dataclass(frozen=True, slots=True)
class Scrub:
    """The command to fill KV blocks with zeros. ``blocks`` has a list of block ids for each group."""

    blocks: list[list[int]]


@dataclass(frozen=True, slots=True)
class Copy:
    """The command to copy KV blocks, in the given order."""

    copies: list[BlockCopy]


@dataclass(frozen=True, slots=True)
class Meet:
    """The command, sent once before the first step, to make and test the connections between ranks."""


Command = Meet | Run | Scrub | Copy


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker's answer once it has loaded its share."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker's message that it has failed. Once it serves steps, ``reason`` is only the type of the error, whose text
    may quote a prompt."""

    reason: str


class TableChange(NamedTuple):
    """The change of a block table since the last step: the first ``kept`` blocks stay, and ``added`` follow them."""

    kept: int
    added: list[int]


class ChunkRow(NamedTuple):
    """One chunk of a step. ``place`` is the index of its sequence in the last step, or -1 if that step did not have
    it."""

    place: int
    start: int
    length: int
    draft: int
    tokens: list[int]
    samples: bool
    scored: int
    tables: list[TableChange]


@dataclass(slots=True, unsafe_hash=True)
class ToldChunk(Chunk):
    """A chunk on a rank other than 0. Its sequence has only block tables; rank 0 has computed the other properties that
    a runner reads."""

    told_tokens: tuple[int, ...] = ()
    told_samples: bool = False
    told_scored: int = 0

    @property
    def tokens(self) -> list[int]:
        return list(self.told_tokens)

    @property
    def samples(self) -> bool:
        return self.told_samples

    @property
    def scored(self) -> int:
        return self.told_scored


class Teller:
    """The encoder of chunks on rank 0. It remembers the block tables of the last step's sequences."""

    def __init__(self) -> None:
        self._last: dict[SequenceState, tuple[int, list[list[int]]]] = {}

    def rows(self, chunks: Iterable[Chunk]) -> list[ChunkRow]:
        """Returns the chunks of one step as rows. Every step that is encoded must be decoded by the other ranks."""
        current: dict[SequenceState, tuple[int, list[list[int]]]] = {}
        rows: list[ChunkRow] = []
        for chunk in chunks:
            sequence = chunk.sequence
            place, known = self._last.get(sequence, (-1, [[] for _ in sequence.tables]))
            changes = [_change(old, table.blocks) for old, table in zip(known, sequence.tables, strict=True)]
            current[sequence] = (len(rows), [[*old[: c.kept], *c.added] for old, c in zip(known, changes, strict=True)])
            told = (chunk.tokens, chunk.samples, chunk.scored, changes)
            rows.append(ChunkRow(place, chunk.start, chunk.length, chunk.draft, *told))
        self._last = current
        return rows


class Listener:
    """The decoder of chunks on the other ranks. It remembers the block tables of the last step."""

    def __init__(self) -> None:
        self._last: list[list[list[int]]] = []

    def chunks(self, rows: Sequence[ChunkRow]) -> list[Chunk]:
        """Returns the chunks that ``rows`` encode."""
        current = [self._tables(row) for row in rows]
        self._last = current
        return [
            ToldChunk(_sequence(tables), row.start, row.length, row.draft, tuple(row.tokens), row.samples, row.scored)
            for row, tables in zip(rows, current, strict=True)
        ]

    def _tables(self, row: ChunkRow) -> list[list[int]]:
        known: Sequence[Sequence[int]] = self._last[row.place] if row.place >= 0 else [()] * len(row.tables)
        return [[*old[: change.kept], *change.added] for old, change in zip(known, row.tables, strict=True)]


def _change(old: list[int], new: list[int]) -> TableChange:
    if new[: len(old)] == old:
        return TableChange(len(old), new[len(old) :])
    return TableChange(0, list(new))


def _sequence(tables: Iterable[list[int]]) -> SequenceState:
    held = [BlockTable(blocks) for blocks in tables]
    return SequenceState("", [], 0, _UNUSED, "", 0, 0, tables=held)


_UNUSED = SamplingParams()
