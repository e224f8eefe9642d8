"""``plain_form``: a text without invisible characters and with each character in its compatible form (NFKC), such as
ASCII for full-width letters. Punctuation and case stay."""

from __future__ import annotations

import unicodedata

from safety.text.folding import fold
from safety.text.normalised import Normalised


def plain_form(text: str) -> Normalised:
    """Returns the text with each character in its compatible form (NFKC) and without characters that are never drawn,
    with a map back to the original's offsets. Letters, marks and punctuation stay as they are."""
    if text.isascii():
        return Normalised(text, range(len(text)), range(1, len(text) + 1))
    chars: list[str] = []
    starts: list[int] = []
    for offset, char in enumerate(text):
        for part in char if char.isascii() else unicodedata.normalize("NFKC", char):
            if part.isascii() or fold(part) or unicodedata.combining(part):
                chars.append(part)
                starts.append(offset)
    return Normalised("".join(chars), starts, [start + 1 for start in starts])
