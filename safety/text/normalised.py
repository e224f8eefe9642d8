"""``Normaliser``: normalises a text in pieces. ``Normalised``: a whole normalised text with a map back to the
original's offsets.

Normalised text has folded letters, and one space for each run of spaces and punctuation in the original.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from safety.text.confusables import LEET
from safety.text.folding import SEPARATOR, fold


@dataclass(frozen=True, slots=True)
class Letter:
    """One folded letter of a text. ``start`` and ``end`` are the offsets of the character that it comes from; several
    letters may come from one. ``spaced``: a separator, or the beginning of the text, is before it."""

    text: str
    start: int
    end: int
    spaced: bool


@dataclass(frozen=True, slots=True)
class Normalised:
    """A normalised text. The character ``i`` comes from the original's characters ``[starts[i], ends[i])``."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Returns the original's offsets of the non-empty range ``[start, end)`` of the normalised text."""
        return self.starts[start], self.ends[end - 1]

    def position(self, offset: int) -> int:
        """Returns the position in the normalised text of the first character at or after an offset of the original."""
        return bisect_left(self.starts, offset)


class Normaliser:
    """Turns one text, which arrives in pieces, into folded letters. ``leet``: digits and signs that stand for letters
    are folded to these. A letter does not depend on what follows it, so nothing is held back. ``spaced``: the last
    character read is a separator, or nothing was read yet."""

    def __init__(self, *, leet: bool = False) -> None:
        self._leet = leet
        self._offset = 0
        self.spaced = True

    def push(self, piece: str) -> list[Letter]:
        """Takes the next piece and returns its letters."""
        letters = []
        for offset, char in enumerate(piece, self._offset):
            for part in LEET.get(char) or fold(char) if self._leet else fold(char):
                if part == SEPARATOR:
                    self.spaced = True
                else:
                    letters.append(Letter(part, offset, offset + 1, self.spaced))
                    self.spaced = False
        self._offset += len(piece)
        return letters


def normalise(text: str, *, leet: bool = False) -> Normalised:
    """Returns the normalised text without spaces at its ends. ``leet``: digits stand for letters."""
    chars: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for letter in Normaliser(leet=leet).push(text):
        if letter.spaced and chars:
            chars.append(SEPARATOR)
            starts.append(ends[-1])
            ends.append(letter.start)
        chars.append(letter.text)
        starts.append(letter.start)
        ends.append(letter.end)
    return Normalised("".join(chars), tuple(starts), tuple(ends))
