"""Parts of a question that an encoder with an English vocabulary reads as one unknown piece: emoji, exponents, letters
and signs of other scripts, and very long words, such as digests.

Two questions that differ in such a part alone are equal to it, and to the pair scorer.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Final

from router.cache.pair_guard.parsed_question import ParsedQuestion

MAX_WORD: Final = 64
"""Characters of a word that is read. WordPiece gives up at 100; a longer word is no English one in any case."""


def unread_parts(text: ParsedQuestion) -> Counter[str]:
    """Returns the letters, digits and symbols of a question beyond ASCII, and its words of more than MAX_WORD
    characters. Letters with accents are read, as "é"."""
    found = Counter(word for word in text.words if len(word) > MAX_WORD)
    if not text.text.isascii():
        parts = unicodedata.normalize("NFD", text.text.casefold())
        found.update(each for each in parts if not each.isascii() and unicodedata.category(each)[0] in "LNS")
    return found


def unread_parts_differ(one: ParsedQuestion, other: ParsedQuestion) -> bool:
    """Returns whether each question has such a part that the other does not have."""
    first, second = unread_parts(one), unread_parts(other)
    return bool(first - second) and bool(second - first)
