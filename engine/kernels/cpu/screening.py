"""Whether a step tells largest logits alone, and finds them with a rough copy of the output layer (src/screen.c)."""

from __future__ import annotations

from collections.abc import Sequence

from engine.scheduler.step_plan import Chunk

MAX_ROWS = 64  # more have their largest logits in many panels
MAX_ROWS_IN_TILES = 12  # more are multiplied with the output layer sooner than they are screened
MAX_MULTIPLIED_SHARE = 0.3  # share of the panels up to which that and the rough copy are less than all panels
WEIGHT = 1 / 16  # of a step in the average
PAUSE = 256  # steps after which it is tried again


class Screening:
    """Screens steps in which nothing but the largest logit of each row matters, while that pays. The answers are the
    same, to the bit; ``panels`` of the output layer, 0 where there is no rough copy. At most ``max_rows`` at once."""

    def __init__(self, panels: int, max_rows: int = MAX_ROWS) -> None:
        self.panels = panels
        self._max_rows = max_rows
        self._multiplied = 0.0
        self._pause = 0

    def asked(self, rows: int) -> bool:
        """Whether the largest logits of ``rows`` are to be found by screening."""
        if not (self.panels and 0 < rows <= self._max_rows):
            return False
        self._pause = max(0, self._pause - 1)
        return not self._pause

    def took(self, multiplied: float) -> None:
        """A step had to multiply so large a share of the panels all the same."""
        self._multiplied += WEIGHT * (multiplied - self._multiplied)
        if self._multiplied > MAX_MULTIPLIED_SHARE:
            self._multiplied, self._pause = 0.0, PAUSE + 1


def largest_alone(chunks: Sequence[Chunk]) -> bool:
    """Whether nothing but the largest logit of each row matters."""
    return all(not chunk.scored and (not chunk.samples or chunk.sequence.takes_largest) for chunk in chunks)
