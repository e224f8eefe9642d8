"""What one step computes."""

from __future__ import annotations

from dataclasses import dataclass

from engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """``length`` tokens of one sequence from position ``start`` on."""

    sequence: Sequence
    start: int
    length: int

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.start + self.length

    @property
    def samples(self) -> bool:
        """Whether the next token can be sampled after this chunk."""
        return self.end == len(self.sequence.tokens)


@dataclass(frozen=True, slots=True)
class Plan:
    """The chunks of one step, at most one per sequence, and who had to give up its blocks for them."""

    chunks: tuple[Chunk, ...]
    preempted: tuple[Sequence, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens the step computes."""
        return sum(chunk.length for chunk in self.chunks)
