"""How much is guessed in a step, and what guesses were worth.

Rows that are computed beside others are nearly free as long as one reading of the weights serves them all. So guesses
fill up to that many rows and no more: with many sequences at once nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.scheduler.plan import Chunk
from engine.sequence import Sequence as SequenceState


@dataclass(slots=True)
class Speculator:
    """Up to ``most`` tokens are guessed for a sequence, and ``rows`` computed in a step with all that are not."""

    most: int
    rows: int
    guessed: int = 0
    right: int = 0

    def guess(self, running: Sequence[SequenceState]) -> None:
        """Gives drafts to decoding sequences. None while a prompt is computed: that step is long enough."""
        if not self.most or not running or not all(sequence.decoding for sequence in running):
            return
        each = min(self.most, self.rows // len(running) - 1)
        for sequence in running if each > 0 else ():
            left = sequence.max_tokens - sequence.generated - 1
            if sequence.lookup is not None and sequence.pending == 1 and left > 0:
                sequence.draft = sequence.lookup.guess(sequence.tokens, min(each, left))

    def learn(self, sequence: SequenceState, guessed: int, right: int) -> None:
        """Of so many tokens that were guessed the first ``right`` were drawn."""
        self.guessed += guessed
        self.right += right
        if sequence.lookup is not None:
            sequence.lookup.learn(guessed, right)

    def forget(self, chunks: Iterable[Chunk]) -> None:
        """A step is over: no draft outlives it."""
        for chunk in chunks:
            chunk.sequence.draft = []
