"""Plain text, which the recognisers read: without invisible characters, with ASCII digits, dashes and spaces."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right

import regex

INVISIBLE = regex.compile(r"[\p{Cf}\p{Variation_Selector}\u034f\u115f\u1160\u3164\uffa0]+")
"""Format characters (zero-width, soft hyphen, direction marks, tags), variation selectors and fillers."""

MAX_DIGIT = 0x1FBF9  # the last decimal digit of Unicode 16


def plain_characters() -> dict[int, str]:
    """Returns a table from the code point of each non-ASCII decimal digit, dash, space and full-width form to its ASCII
    character."""
    plain: dict[int, str] = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    for code in range(0x80, MAX_DIGIT + 1):
        category = unicodedata.category(chr(code))
        if category == "Nd":
            plain[code] = str(unicodedata.decimal(chr(code)))
        elif category == "Pd":
            plain[code] = "-"
        elif category == "Zs":
            plain[code] = " "
    return plain | {0x2212: "-", 0x3002: ".", 0xFF61: "."}


PLAIN = plain_characters()
OTHER = regex.compile(r"[[\p{Nd}\p{Pd}\p{Zs}\uff01-\uff5e\u2212\u3002\uff61]--[\x00-\x7f]]", regex.VERSION1)
"""The characters that ``PLAIN`` replaces."""


def plain(text: str) -> str:
    """Returns ``text``, of the same length, with digits, dashes, spaces and full-width forms in ASCII (``PLAIN``)."""
    return str(OTHER.sub(lambda other: PLAIN.get(ord(other[0]), other[0]), text))


class PlainText:
    """Converts pieces of a text to plain text, and maps its offsets back to the original."""

    def __init__(self) -> None:
        self.length = 0  # of the plain text
        self.original_length = 0
        self._positions = [0]  # of the plain text, from which the shift of the same index holds
        self._shifts = [0]

    def push(self, piece: str) -> str:
        """Returns the plain text of the next piece."""
        self.original_length += len(piece)
        if piece.isascii():
            self.length += len(piece)
            return piece
        kept, start = [], 0
        for invisible in INVISIBLE.finditer(piece):
            kept.append(plain(piece[start : invisible.start()]))
            start = invisible.end()
            self.length += len(kept[-1])
            self._shift(start - invisible.start())
        kept.append(plain(piece[start:]))
        self.length += len(kept[-1])
        return "".join(kept)

    def original(self, position: int) -> int:
        """Returns the original offset of the plain character at ``position``; for the length of the plain text, that of
        the original's end."""
        if position >= self.length:
            return self.original_length
        return position + self._shifts[bisect_right(self._positions, position) - 1]

    def original_end(self, position: int) -> int:
        """Returns the original offset just after the plain character before ``position``."""
        return self.original(position - 1) + 1 if position else 0

    def forget(self, position: int) -> None:
        """Frees the offsets of the plain characters before ``position``."""
        first = bisect_right(self._positions, position) - 1
        if first > 0:
            del self._positions[:first], self._shifts[:first]

    def _shift(self, removed: int) -> None:
        """Notes that ``removed`` characters were left out here."""
        shift = self._shifts[-1] + removed
        if self._positions[-1] == self.length:
            self._shifts[-1] = shift
        else:
            self._positions.append(self.length)
            self._shifts.append(shift)
