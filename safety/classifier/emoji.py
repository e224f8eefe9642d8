"""``without_emoji``: texts as the first model reads them, whose vocabulary has hardly any emoji.

To that model nearly every emoji would be the same unknown word, a thumbs up as well as a knife.
"""

from __future__ import annotations

from typing import Final

BLOCKS: Final = (range(0x2600, 0x27C0), range(0x2B00, 0x2C00), range(0x1F000, 0x1FB00))
"""Miscellaneous symbols and dingbats, stars, and the blocks from mahjong tiles to pictographs."""

_SPACES: Final = {code: " " for block in BLOCKS for code in block}


def without_emoji(text: str) -> str:
    """Returns ``text`` with a space in place of each emoji, so that all other characters keep their places."""
    return text if text.isascii() else text.translate(_SPACES)
