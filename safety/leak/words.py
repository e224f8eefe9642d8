"""``WordReader``: splits a text that arrives in pieces into words of normalised letters. Pure.

In scripts without spaces every letter is a word. Markdown, punctuation, case and spacing make no difference.
"""

from __future__ import annotations

from dataclasses import dataclass

from safety.text.folding import is_unspaced
from safety.text.normalised import Letter, Normaliser

MAX_WORD = 64
"""Letters. A longer word equals no other word."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text, at the characters ``[start, end)``. ``weight`` is 2, or 1 for a letter of a script without
    spaces."""

    text: str
    start: int
    end: int
    weight: int


class WordReader:
    """Splits one text, which arrives in pieces, into words. ``unfinished`` is the offset at which the last word begins
    if it may still grow; else None."""

    def __init__(self) -> None:
        self._normaliser = Normaliser()
        self._letters: list[str] = []
        self._start = 0
        self._end = 0

    @property
    def unfinished(self) -> int | None:
        return self._start if self._letters else None

    def push(self, piece: str, *, final: bool = False) -> list[Word]:
        """Takes the next piece and returns the words that it completes. ``final``: it is the last piece."""
        words: list[Word] = []
        for letter in self._normaliser.push(piece):
            alone = is_unspaced(letter.text)
            if letter.spaced or alone:
                self._finish(words)
            self._add(letter)
            if alone:
                self._finish(words, weight=1)
        if final or self._normaliser.spaced:
            self._finish(words)
        return words

    def _add(self, letter: Letter) -> None:
        if not self._letters:
            self._start = letter.start
        self._end = letter.end
        if len(self._letters) <= MAX_WORD:
            self._letters.append(letter.text)

    def _finish(self, words: list[Word], weight: int = 2) -> None:
        if self._letters:
            text = "".join(self._letters) if len(self._letters) <= MAX_WORD else ""
            words.append(Word(text, self._start, self._end, weight))
            self._letters = []
