"""Windows of long texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowSize:
    """``tokens``: the word pieces in a window, without special tokens. ``stride``: how far a window begins after the
    one before it. Less than ``tokens``, so that what one border cuts is whole in the next window."""

    tokens: int
    stride: int

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.tokens:
            raise ValueError("window: stride must be from 1 to tokens")


def windows(pieces: Sequence[int], size: WindowSize) -> list[Sequence[int]]:
    """Returns the windows of a text, in order. All pieces are in one of them.

    The last window ends with the text, so that none is short in a long text. An empty text has one empty window.
    """
    last = max(0, len(pieces) - size.tokens)
    starts = [*range(0, last, size.stride), last]
    return [pieces[start : start + size.tokens] for start in starts]
