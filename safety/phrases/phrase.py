"""``Phrase``: an entry of a blocklist. ``Pattern``: the letters of a phrase, and the test whether letters of a text
spell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safety.text.confusables import LEET
from safety.text.folding import SEPARATOR, fold, is_unspaced

MAX_LETTERS = 256
MIN_SPACED_OUT = 3
"""Phrases of fewer letters are not looked for with spaces between their letters: ``i t`` is no disguise."""
BLOCKED = "BLOCKED_PHRASE"


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase of a blocklist. ``kind`` is the kind of the spans that report it. ``within_words``: it is also found
    within a word, without word borders around it."""

    text: str
    kind: str = BLOCKED
    within_words: bool = False


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter of a text or phrase.

    ``folded`` is the form that the automaton reads; ``plain`` is the letter without leetspeak, empty for a sign.
    ``start`` is the offset of its character. ``border``: a word may begin here, since a separator or a letter of a
    script without spaces is before it. ``spaced``: a separator is before it.
    """

    folded: str
    plain: str
    start: int
    spaced: bool
    border: bool


@dataclass(frozen=True, slots=True)
class Pattern:
    """The letters of a phrase. ``spaced[i]``: the phrase has a space before letter ``i``. ``kind`` is None for a phrase
    of the allowlist; ``within_words`` is as in ``Phrase``."""

    folded: str
    plain: str
    spaced: tuple[bool, ...]
    kind: str | None
    within_words: bool = False

    @property
    def has_spaces(self) -> bool:
        """Whether the phrase has more than one word."""
        return True in self.spaced

    @property
    def begins_open(self) -> bool:
        """Whether the phrase may follow a letter without a word border."""
        return self.within_words or is_unspaced(self.folded[0])

    @property
    def ends_open(self) -> bool:
        """Whether a letter may follow the phrase without a word border."""
        return self.within_words or is_unspaced(self.folded[-1])

    def is_spelled_by(self, letters: Sequence[Letter]) -> bool:
        """Returns whether ``letters``, which fold to the letters of this pattern, spell the phrase. They must begin at
        a word border, their spaces must be where the phrase has them or between all letters of a word, and digits must
        stand for letters only."""
        return (self.begins_open or letters[0].border) and self._spaces_fit(letters) and self._letters_fit(letters)

    def _spaces_fit(self, letters: Sequence[Letter]) -> bool:
        spaced_out: bool | None = None  # whether the present word has a space before each letter but its first
        for index in range(1, len(letters)):
            spaced = letters[index].spaced
            if is_unspaced(self.folded[index - 1]) or is_unspaced(self.folded[index]):
                continue
            if self.spaced[index]:
                if not spaced:
                    return False
                spaced_out = None
            elif spaced_out is None:
                if spaced and len(letters) < MIN_SPACED_OUT:
                    return False
                spaced_out = spaced
            elif spaced_out is not spaced:
                return False
        return True

    def _letters_fit(self, letters: Sequence[Letter]) -> bool:
        if all(letter.plain == plain for letter, plain in zip(letters, self.plain, strict=True)):
            return True
        substituted = all(
            letter.plain == plain or ((letter.plain in LEET or not letter.plain) and not plain.isdigit())
            for letter, plain in zip(letters, self.plain, strict=True)
        )
        return substituted and any(letter.plain.isalpha() for letter in letters)


def is_literal(text: str) -> bool:
    """Returns whether the phrase is found wherever its characters occur in a row, so that a ban of these characters
    forbids nothing else. That is so in scripts without spaces; ``bomb``, however, is allowed within ``bombast``."""
    pattern = compile_phrase(text, None)
    return pattern.plain == text and all(map(is_unspaced, text))


def compile_phrase(text: str, kind: str | None, *, leet: bool = False, within_words: bool = False) -> Pattern:
    """Returns the pattern of a phrase. ``leet``: digits and signs of the phrase fold as those of the text.

    Raises ValueError if it has fewer than two letters (one in scripts without spaces), such as ``c++``, which would be
    found in each ``c``, or too many letters. ``kind`` and ``within_words`` are as in ``Phrase``; ``kind`` None: the
    phrase is an allowed one.
    """
    folded, plain, spaced, gap = [], [], [], False
    for char in text:
        for part in fold(char):
            if part == SEPARATOR:
                gap = True
                continue
            folded.append(LEET.get(part, part) if leet else part)
            plain.append(part)
            spaced.append(gap and len(folded) > 1)
            gap = False
    if not folded or (len(folded) == 1 and not is_unspaced(folded[0])):
        raise ValueError(f"The phrase {text!r} has fewer than two letters or digits; punctuation does not count.")
    if len(folded) > MAX_LETTERS:
        raise ValueError(f"The phrase {text[:40]!r}… has more than {MAX_LETTERS} letters.")
    return Pattern("".join(folded), "".join(plain), tuple(spaced), kind, within_words)
