"""Reads a text backwards from a match: the letters before an offset, and the word borders around them. Pure.

Only where the automaton says that a phrase may end is the text read again, and only as far as the phrase reaches.
"""

from __future__ import annotations

from safety.phrases.phrase import Letter
from safety.text.confusables import LEET
from safety.text.folding import SEPARATOR, fold, is_unspaced

MAX_IGNORED = 64
"""The ignorable characters in a row that are skipped in search of a border; behind more of them there is one."""


def letters_before(text: str, end: int, count: int, max_extent: int, *, leet: bool = False) -> list[Letter]:
    """Returns the last ``count`` letters of ``text[:end]``, in order; fewer if the text has fewer, or more than
    ``max_extent`` characters would have to be read. Only whole characters count: the first letters of the result may
    be missing where a character has several."""
    found: list[Letter] = []
    position = end
    while position > max(0, end - max_extent) and len(found) < count:
        position -= 1
        letters = _letters_of(text, position, leet=leet)
        if len(found) + len(letters) > count:
            break
        found.extend(reversed(letters))
    return found[::-1]


def _letters_of(text: str, position: int, *, leet: bool) -> list[Letter]:
    char = text[position]
    plain = fold(char)
    if not plain:
        return []
    spaced, border = _before(text, position, leet=leet)
    if leet and char in LEET:
        return [Letter(LEET[char], "" if plain == SEPARATOR else plain, position, spaced, border)]
    letters: list[Letter] = []
    for part in plain:
        if part == SEPARATOR:
            spaced = border = True
        else:
            letters.append(Letter(part, part, position, spaced, border or is_unspaced(part)))
            spaced, border = False, is_unspaced(part)
    return letters


def _before(text: str, position: int, *, leet: bool) -> tuple[bool, bool]:
    """Whether a separator, and whether a border, is before the character at ``position``."""
    for index in range(position - 1, max(-1, position - 1 - MAX_IGNORED), -1):
        folded = fold(text[index])
        if folded:
            ends_word = folded[-1] == SEPARATOR
            return ends_word and not (leet and text[index] in LEET), ends_word or is_unspaced(folded[-1])
    return True, True


def border_before(text: str, position: int) -> bool:
    """Returns whether a word may begin at ``position``, an offset into ``text``: a separator or a character of a script
    without spaces is before it."""
    return _before(text, position, leet=False)[1]


def border_after(text: str, end: int, *, final: bool) -> bool | None:
    """Returns whether a word may end before ``end``, an offset into ``text``; None if that depends on text that has not
    arrived. ``final``: no more will."""
    for index in range(end, min(len(text), end + MAX_IGNORED)):
        folded = fold(text[index])
        if folded:
            return folded[0] == SEPARATOR or is_unspaced(folded[0])
    return True if final or len(text) >= end + MAX_IGNORED else None
