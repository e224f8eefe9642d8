"""Texts of clients as they may be repeated to them."""

from __future__ import annotations


def printable(text: str) -> str:
    """Returns a client's text as it may be repeated in an error: ASCII, at most 128 characters."""
    return text.encode("ascii", "backslashreplace").decode()[:128]
