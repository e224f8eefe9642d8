"""``Decoded``: a text that was found encoded in a passage."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Encoding(StrEnum):
    """The encoding of a text in a passage."""

    BASE64 = "base64"
    BASE32 = "base32"
    HEX = "hex"
    BINARY = "binary"
    DECIMAL = "decimal"  # the numbers of characters
    ESCAPES = "escapes"  # of programming languages and HTML
    URL = "url"
    QUOTED_PRINTABLE = "quoted_printable"
    MORSE = "morse"
    ROT13 = "rot13"
    ATBASH = "atbash"
    REVERSED = "reversed"
    LEET = "leet"
    SPACED = "spaced"  # i g n o r e
    HOMOGLYPHS = "homoglyphs"
    ZERO_WIDTH = "zero_width"  # between the letters of words
    ZERO_WIDTH_BITS = "zero_width_bits"
    TAGS = "tags"  # Unicode tag characters
    VARIATION_SELECTORS = "variation_selectors"


BYTES = frozenset(
    {
        Encoding.BASE64,
        Encoding.BASE32,
        Encoding.HEX,
        Encoding.BINARY,
        Encoding.DECIMAL,
        Encoding.ESCAPES,
        Encoding.URL,
        Encoding.QUOTED_PRINTABLE,
    }
)
"""The forms that write bytes or numbers of characters."""
HIDDEN = frozenset({Encoding.TAGS, Encoding.VARIATION_SELECTORS, Encoding.ZERO_WIDTH_BITS})
"""The forms that a reader cannot see."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded text, which is to be classified too; the characters ``[start, end)`` of the passage that encode it; and
    its encodings, the outermost first."""

    text: str
    start: int
    end: int
    encodings: tuple[Encoding, ...]
