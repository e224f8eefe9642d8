"""Cuts long texts into overlapping windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[int, int]
"""A part of a text: the index of its first character, and of the one after its last."""


@dataclass(frozen=True, slots=True)
class WindowSize:
    """The size of windows. ``tokens`` is the number of word pieces in a window, without special tokens. ``stride`` is
    the distance between the starts of two windows. It is less than ``tokens``, so that a phrase cut by one border is
    whole in the next window."""

    tokens: int
    stride: int

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.tokens:
            raise ValueError("window: stride must be from 1 to tokens")


def windows(pieces: Sequence[int], size: WindowSize) -> list[Sequence[int]]:
    """Returns the windows of a text, in order. Each piece is in at least one window.

    The last window ends with the text, so that no window of a long text is short. An empty text has one empty window.
    """
    last = max(0, len(pieces) - size.tokens)
    starts = [*range(0, last, size.stride), last]
    return [pieces[start : start + size.tokens] for start in starts]


def spans(offsets: Sequence[Span], characters: int, size: WindowSize) -> list[Span]:
    """Returns the part of a text that each of its windows is cut from, in order.

    ``offsets`` are those of the pieces in the text, which has ``characters`` characters. Characters that no piece has
    go with the piece before them, those at the beginning with the first, so that each is in a span. Pieces may share a
    character: of a Korean syllable each letter is one.
    """
    starts = [0, *(start for start, _ in offsets[1:])]
    ends = [max(end, after) for (_, end), after in zip(offsets, [*starts[1:], characters], strict=False)]
    cut = windows(range(len(offsets)), size)
    return [(starts[each[0]], ends[each[-1]]) if each else (0, characters) for each in cut]
