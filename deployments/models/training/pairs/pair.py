"""``Pair``: two texts, and whether the answer to one answers the other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

WORDS: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Pair:
    """``same``: 1 if the texts ask for the same answer, else 0. ``source``: the data set, or the rule that made it."""

    text_a: str
    text_b: str
    same: int
    source: str


def normal(text: str) -> str:
    """Returns the lower-cased words of ``text``, by which texts are the same question for the splits."""
    return " ".join(WORDS.findall(text.lower())) or text
