"""What one step computes."""

from __future__ import annotations

from dataclasses import dataclass

from engine.kv.format import BlockCopy
from engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """``length`` tokens of one sequence from position ``start`` on, the last ``draft`` of them guessed."""

    sequence: Sequence
    start: int
    length: int
    draft: int = 0

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.start + self.length

    @property
    def tokens(self) -> list[int]:
        """Those to compute."""
        known = self.sequence.tokens[self.start : self.end]
        return [*known, *self.sequence.draft[: self.draft]] if self.draft else known

    def kept(self, accepted: int) -> Chunk:
        """What it comes to when the first ``right`` tokens of its draft were."""
        return Chunk(self.sequence, self.start, self.length - self.draft + accepted)

    @property
    def scored(self) -> int:
        """Of the first so many rows the logits are wanted because the prompt's own next token is to be scored."""
        sequence = self.sequence
        return max(0, min(self.end, sequence.prompt_length - 1) - self.start) if sequence.scores_prompt else 0

    @property
    def samples(self) -> bool:
        """Whether the next token can be sampled after this chunk."""
        return self.end - self.draft == len(self.sequence.tokens)

    @property
    def sampled(self) -> int:
        """Of the last so many rows a token is sampled."""
        return 1 + self.draft if self.samples else 0


@dataclass(frozen=True, slots=True)
class Load:
    """How the tokens of a step divide, for those who learn from how long it took."""

    decodes: int = 0
    watched: int = 0  # of these, decodes of a class above batch: somebody waits for each token
    long: int = 0  # tokens of prompts that take more than one step
    short: int = 0  # tokens of prompts that fit into one
    extra: int = 0  # tokens of decodes beside one each: forced or guessed


@dataclass(frozen=True, slots=True)
class Plan:
    """The chunks of one step, at most one per sequence; which sequences are admitted for the first time; who gave its
    blocks up for them; and who left the queue without having been admitted: too late, or since looking at it raised."""

    chunks: tuple[Chunk, ...]
    copies: tuple[BlockCopy, ...] = ()  # to be made before the chunks are run
    admitted: tuple[Sequence, ...] = ()
    preempted: tuple[Sequence, ...] = ()
    expired: tuple[Sequence, ...] = ()
    failed: tuple[tuple[Sequence, Exception], ...] = ()
    load: Load = Load()

    @property
    def tokens(self) -> int:
        """Tokens the step computes."""
        return sum(chunk.length for chunk in self.chunks)
