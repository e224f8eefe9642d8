"""Decides whether decoded bytes are readable text. Pure."""

from __future__ import annotations

import re

MAX_BYTES = 65_536
"""What is decoded of one payload."""
_WINDOW = 2048
_MIN_LETTERS = 0.75
_MAX_BAD = 0.1
_WORD = re.compile(r"[^\W\d_]{2,}")
_ENCODED = re.compile(r"[A-Za-z0-9+/_\-%=\s]{16,}")


def is_readable(text: str) -> bool:
    """Returns whether the text consists of words: three quarters are letters and spaces, hardly any character is
    unprintable, and it has two or more words, or letters of a script without spaces."""
    size = len(text)
    bad = sum(char == "\ufffd" or not (char.isprintable() or char.isspace()) for char in text)
    if size < 6 or bad > _MAX_BAD * size:
        return False
    if sum(char.isalpha() or char.isspace() for char in text) < _MIN_LETTERS * size:
        return False
    return len(_WORD.findall(text)) > 1 or not text.isascii()


def may_be_encoded(text: str) -> bool:
    """Returns whether the text may itself be encoded, in base64, hex, decimal or URL encoding."""
    return bool(_ENCODED.fullmatch(text))


def readable_text(raw: bytes) -> str:
    """Returns the part of the first MAX_BYTES bytes that is readable as UTF-8, or as UTF-16 if every second byte is
    zero, or that may itself be encoded; "" if there is none. Long payloads are judged in windows, so that noise before
    a text does not hide it."""
    raw = raw[:MAX_BYTES]
    if raw.count(0) * 3 > len(raw):
        raw = raw.decode("utf-16-le", "replace").encode("utf-8", "replace")
    windows = (raw[start : start + _WINDOW].decode("utf-8", "replace") for start in range(0, len(raw), _WINDOW))
    return "".join(window for window in windows if is_readable(window) or may_be_encoded(window))
