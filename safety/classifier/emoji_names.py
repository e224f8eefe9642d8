"""``EmojiNames``: texts with their emoji as words, since the word pieces of the first model have none.

To that model every emoji would be ``[UNK]``, a thumbs up as well as a knife.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

from safety.classifier.windows import Span

BLOCKS: Final = (range(0x2600, 0x27C0), range(0x2B00, 0x2C00), range(0x1F000, 0x1FB00))
"""Miscellaneous symbols and dingbats, stars, and the blocks from mahjong tiles to pictographs."""

SKIN_TONES: Final = range(0x1F3FB, 0x1F400)
REGIONAL_INDICATORS: Final = range(0x1F1E6, 0x1F200)
"""Letters, two of which are a flag."""

OTHER_NAMES: Final = {0x1F52A: " knife "}
"""Words for emoji whose name few texts have: a knife is a HOCHO."""

UNSAID: Final = frozenset(["black", "white", "heavy", "medium", "sign", "symbol", "emoji", "face", "with"])
"""Words of names that are about the drawing. A red heart is a HEAVY BLACK HEART in Unicode."""


def _names() -> Iterator[tuple[int, str]]:
    for block in BLOCKS:
        for code in block:
            name = unicodedata.name(chr(code), "").lower().replace("-", " ")
            if name:
                yield code, f" {' '.join(word for word in name.split() if word not in UNSAID)} "
    yield from ((code, "") for code in SKIN_TONES)
    yield from ((code, chr(ord("a") + place)) for place, code in enumerate(REGIONAL_INDICATORS))


class EmojiNames:
    """Replaces emoji by their names in Unicode, with a space at each side: ``👍`` by ``thumbs up``. Skin tones are left
    out, and flags are the two letters of their country."""

    def __init__(self) -> None:
        self._names = dict(_names()) | OTHER_NAMES

    def __call__(self, text: str) -> str:
        return text if text.isascii() else text.translate(self._names)

    def original(self, text: str, spans: Sequence[Span]) -> list[Span]:
        """Returns the parts of ``text`` that parts of ``self(text)`` are from. None of ``spans`` is empty. A part of a
        name is from its emoji."""
        if text.isascii():
            return list(spans)
        places = [place for place, one in enumerate(text) for _ in self._names.get(ord(one), one)]
        return [(places[start], places[end - 1] + 1) for start, end in spans]
