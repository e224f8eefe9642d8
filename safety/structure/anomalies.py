"""``anomalies``: scores how unusual a text is in size, characters, repetition and script. Pure."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from safety.text.folding import fold

SAMPLE = 65_536
"""Characters that are looked at, from the beginning; size counts all."""
MIN_REPETITION = 1024
"""Shorter texts are not repetitive, only short."""
_USUAL_RATIO = 12.0
"""How far text, code and tables are compressed at most; a text in which everything repeats reaches 100 and more."""
_EXTREME_RATIO = 60.0
_WORD = re.compile(r"[^\W\d_]{3,}")
_MIXABLE = frozenset({"HIRAGANA", "KATAKANA", "CJK", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH"})

_ORDINARY = "\u200c\u200d\u200e\u200f\ufeff\u00ad"
"""Invisible characters of ordinary text: joiners in emoji and scripts, marks of direction, byte order mark, hyphens."""


@dataclass(frozen=True, slots=True)
class Anomalies:
    """The scores of a text, each between 0 and 1.

    ``size``: the length as a share of the limit. ``odd``: the share of control, invisible, private and unassigned
    characters, tenfold. ``repetition``: the degree to which it compresses better than usual text. ``mixture``: the
    share of words in more than one script.
    """

    size: float
    odd: float
    repetition: float
    mixture: float


def anomalies(text: str, max_characters: int) -> Anomalies:
    """Returns the scores of a text. ``max_characters`` is the size that scores 1."""
    sample = text[:SAMPLE]
    return Anomalies(
        size=min(1.0, len(text) / max_characters),
        odd=_odd(sample),
        repetition=_repetition(sample),
        mixture=_mixture(sample),
    )


def scripts(text: str) -> Mapping[str, float]:
    """Returns the share of each script among the letters of a text, by the first word of their Unicode names such as
    ``LATIN``, ``CYRILLIC``, ``CJK``; empty without letters."""
    counts = Counter[str]()
    for char, count in Counter(text[:SAMPLE]).items():
        if char.isalpha():
            counts[_script(char)] += count
    return {script: count / counts.total() for script, count in counts.items()}


def _script(letter: str) -> str:
    return "LATIN" if letter.isascii() else unicodedata.name(letter, "UNKNOWN").partition(" ")[0]


def _odd(text: str) -> float:
    count = sum(number for char, number in Counter(text).items() if _is_odd(char))
    return min(1.0, 10 * count / len(text)) if len(text) > 16 else 0.0


def _is_odd(char: str) -> bool:
    if char.isascii():
        return not (char.isprintable() or char.isspace())
    if "\U000e0020" <= char <= "\U000e007f":
        return False  # flags of regions have them; a text in them is found as hidden
    category = unicodedata.category(char)
    return category in ("Cc", "Co", "Cn") or (not fold(char) and category[0] != "M" and char not in _ORDINARY)


def _repetition(text: str) -> float:
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) < MIN_REPETITION:
        return 0.0
    ratio = len(raw) / len(zlib.compress(raw, 1))
    return min(1.0, max(0.0, (ratio - _USUAL_RATIO) / (_EXTREME_RATIO - _USUAL_RATIO)))


def _mixture(text: str) -> float:
    if text.isascii():
        return 0.0
    words = _WORD.findall(text)
    mixed = sum(not word.isascii() and _is_mixed(word) for word in words)
    return mixed / len(words) if words else 0.0


def _is_mixed(word: str) -> bool:
    return len({_script(letter) for letter in word} - _MIXABLE) > 1
