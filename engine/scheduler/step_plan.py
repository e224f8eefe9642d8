"""``Plan``: the scheduler's decisions for one step (vLLM's ``SchedulerOutput``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from engine.kv.format import BlockCopy
from engine.sequence import Sequence


@dataclass(slots=True, unsafe_hash=True)
class Chunk:
    """The tokens that one sequence computes in a step: ``length`` tokens from position ``start`` on. The last ``draft``
    of them are draft tokens.

    Treat it as immutable. It is not frozen because each step makes one for every sequence, and creating a frozen
    dataclass takes four times as long.
    """

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
        """The ids of the chunk's tokens, draft tokens included."""
        known = self.sequence.tokens[self.start : self.start + self.length]
        return [*known, *self.sequence.draft[: self.draft]] if self.draft else known

    def kept(self, accepted: int) -> Chunk:
        """Returns the chunk without its draft tokens after the first ``accepted``. Those count as ordinary tokens
        then."""
        return Chunk(self.sequence, self.start, self.length - self.draft + accepted)

    @property
    def scored(self) -> int:
        """Number of leading rows whose logits score the next prompt token. 0 unless prompt log probabilities are
        wanted."""
        sequence = self.sequence
        return max(0, min(self.end, sequence.prompt_length - 1) - self.start) if sequence.scores_prompt else 0

    @property
    def samples(self) -> bool:
        """Whether the chunk reaches the sequence's last token, so that the next token can be sampled."""
        return self.start + self.length - self.draft == len(self.sequence.tokens)

    @property
    def sampled(self) -> int:
        """Number of trailing rows that a token is sampled after: one for the last token and one for each draft
        token."""
        return 1 + self.draft if self.samples else 0


class Load(NamedTuple):
    """The contents of a step, for estimates of its time."""

    decodes: int = 0  # decoding sequences
    watched: int = 0  # decoding sequences of a class above batch, whose users wait for each token
    long: int = 0  # tokens of prompts that take more than one step
    short: int = 0  # tokens of prompts that fit into one step
    extra: int = 0  # forced and draft tokens of decodes


class Plan(NamedTuple):
    """The scheduler's decisions for one step (vLLM's ``SchedulerOutput``): the chunks, at most one per sequence, and
    the sequences whose status changed during planning."""

    chunks: tuple[Chunk, ...]
    copies: tuple[BlockCopy, ...] = ()  # block copies to make before the chunks are run
    admitted: tuple[Sequence, ...] = ()  # admitted for the first time
    preempted: tuple[Sequence, ...] = ()
    expired: tuple[Sequence, ...] = ()  # removed from the queue because their deadline has passed
    failed: tuple[tuple[Sequence, Exception], ...] = ()  # removed because admitting them raised an error
    load: Load = Load()

    @property
    def tokens(self) -> int:
        """Number of tokens that the step computes."""
        return sum(chunk.length for chunk in self.chunks)
