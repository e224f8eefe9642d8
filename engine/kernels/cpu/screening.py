"""Whether a step looks for the largest logits alone, with a rough copy of the output layer (src/screen.c)."""

from __future__ import annotations

from collections.abc import Sequence

from engine.scheduler.plan import Chunk

MOST_ROWS = 16  # more have their largest logits in many panels, and are bound by products rather than by memory
MOST_MULTIPLIED = 0.4  # share of the panels up to which that and the rough copy are less than all panels
WEIGHT = 1 / 16  # of a step in the average
PAUSE = 256  # steps after which it is tried again


class Screening:
    """Screens steps in which nothing but the largest logit of each row matters, while that pays. The answers are the
    same, to the bit; ``panels`` of the output layer, 0 where there is no rough copy."""

    def __init__(self, panels: int) -> None:
        self.panels = panels
        self._multiplied = 0.0
        self._pause = 0

    def asked(self, chunks: Sequence[Chunk]) -> bool:
        """Whether the step that computes ``chunks`` is to be screened."""
        if not (self.panels and 0 < sum(c.sampled for c in chunks) <= MOST_ROWS and all(map(_wants_largest, chunks))):
            return False
        self._pause = max(0, self._pause - 1)
        return not self._pause

    def took(self, multiplied: float) -> None:
        """A step had to multiply so large a share of the panels all the same."""
        self._multiplied += WEIGHT * (multiplied - self._multiplied)
        if self._multiplied > MOST_MULTIPLIED:
            self._multiplied, self._pause = 0.0, PAUSE + 1


def _wants_largest(chunk: Chunk) -> bool:
    return not chunk.scored and (not chunk.samples or chunk.sequence.takes_largest)
