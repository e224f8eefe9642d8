"""``Screening``: decides whether a step finds its largest logits by screening, with an 8-bit copy of the output layer
(src/screen.c)."""

from __future__ import annotations

from collections.abc import Sequence

from engine.scheduler.step_plan import Chunk

MAX_ROWS = 64  # more have their largest logits in many panels
MAX_ROWS_IN_TILES = 12  # more are multiplied with the output layer sooner than they are screened
MAX_MULTIPLIED_SHARE = 0.3  # share of the panels up to which that and the rough copy are less than all panels
WEIGHT = 1 / 16  # of a step in the average
PAUSE = 256  # steps after which it is tried again


class Screening:
    """Decides about screening for steps that need only the largest logit of each row, while screening saves time.
    Answers are bitwise the same. ``panels`` is the number of panels of the output layer, 0 without an 8-bit copy. Steps
    of more than ``max_rows`` rows are not screened."""

    def __init__(self, panels: int, max_rows: int = MAX_ROWS) -> None:
        self.panels = panels
        self._max_rows = max_rows
        self._multiplied = 0.0
        self._pause = 0

    def asked(self, rows: int) -> bool:
        """Returns whether the largest logits of a step with ``rows`` rows should be found by screening."""
        if not (self.panels and 0 < rows <= self._max_rows):
            return False
        self._pause = max(0, self._pause - 1)
        return not self._pause

    def took(self, multiplied: float) -> None:
        """Records that a screened step still had to multiply the share ``multiplied``, 0 to 1, of the panels."""
        self._multiplied += WEIGHT * (multiplied - self._multiplied)
        if self._multiplied > MAX_MULTIPLIED_SHARE:
            self._multiplied, self._pause = 0.0, PAUSE + 1


def largest_alone(chunks: Sequence[Chunk]) -> bool:
    """Returns whether the step needs only the largest logit of each sampled row."""
    return all(not chunk.scored and (not chunk.samples or chunk.sequence.takes_largest) for chunk in chunks)
