"""``fold``: maps one character to the letters that a reader sees in it, without case, accents and disguise.

The result does not depend on the neighbouring characters, so that a text may be cut anywhere, also within a combining
sequence.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from safety.text.confusables import latin_image

SEPARATOR = " "
"""What every space and punctuation mark folds to."""

_FIRST_REGIONAL = 0x1F1E6
_IGNORABLE_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u17b4\u17b5")
"""Letters by category that are never drawn (Default_Ignorable_Code_Point): fillers of Hangul, vowels of Khmer."""
_OPTIONAL_MARKS = (
    (0x0300, 0x036F),  # accents of Latin, Greek and Cyrillic
    (0x0483, 0x0487),  # Cyrillic
    (0x0591, 0x05BD),  # Hebrew points
    (0x064B, 0x065F),  # Arabic vowels
    (0x1AB0, 0x1AFF),
    (0x1DC0, 0x1DFF),
    (0x20D0, 0x20FF),
    (0xFE20, 0xFE2F),
)
"""Blocks of marks without which a word is still the same word. In other scripts marks are vowels, and stay."""
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1100, 0x11FF),  # Hangul, as decomposed: particles follow without a space
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FFF),  # CJK radicals
    (0x3005, 0x3007),
    (0x3040, 0x31FF),  # Kana, Bopomofo
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),  # Han
    (0xAC00, 0xD7AF),
    (0x20000, 0x3FFFF),
)


def is_unspaced(letter: str) -> bool:
    """Returns whether words with this folded letter have no word borders: in scripts without spaces, and symbols such
    as emoji."""
    code = ord(letter)
    if code < 0x0E00:
        return False
    return any(low <= code <= high for low, high in _UNSPACED) or unicodedata.category(letter) == "So"


@lru_cache(maxsize=16_384)
def fold(char: str) -> str:
    """Returns the folded form of a character: lower-case letters or digits, or SEPARATOR for a space or punctuation
    mark. It is empty for accents and for characters that are never drawn.

    NFKD (Unicode Standard Annex 15), case folding, then look-alikes. Decomposed Hangul stays decomposed. A regional
    indicator is a word of its own, so that a flag after a word is no part of the word.
    """
    if _FIRST_REGIONAL <= ord(char) < _FIRST_REGIONAL + 26:
        return f"{SEPARATOR}{chr(ord(char) - _FIRST_REGIONAL + ord('a'))}{SEPARATOR}"
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(_fold_part(part) for part in folded)


def _fold_part(part: str) -> str:
    category = unicodedata.category(part)
    if part in _IGNORABLE_LETTERS or category == "Cf" or _is_optional_mark(part, category):
        return ""
    if category == "Cc":
        return SEPARATOR if part.isspace() else ""
    if category[0] in "LNM":
        return latin_image(part) or part
    if category == "So" and part != "\u2800":  # the blank of Braille
        return latin_image(part) or part
    return SEPARATOR


def _is_optional_mark(part: str, category: str) -> bool:
    code = ord(part)
    if 0xFE00 <= code <= 0xFE0F or 0xE0000 <= code <= 0xE0FFF or code in (0x034F, 0x180B, 0x180C, 0x180D, 0x180F):
        return True  # selectors of variants
    return category in ("Mn", "Me") and any(low <= code <= high for low, high in _OPTIONAL_MARKS)
