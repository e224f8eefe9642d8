"""``legible_text``: a text without what a reader does not see, which would otherwise fill the tokens of a window."""

from __future__ import annotations

import regex

_UNSEEN = regex.compile(r"[[\p{C}\uFFFD]--[\t\n\r]]+", regex.V1)
"""Control, format, private and unassigned characters, which the word pieces of the first model do not have either."""

_RUNS = regex.compile(r"(\s{8})\s+|(\p{M}{8})\p{M}+")
"""More than 8 spaces or line breaks, or 8 marks on a letter, one after the other."""


def legible_text(text: str) -> str:
    """Returns ``text`` without invisible characters. Of long runs of white space and of marks it has the beginning."""
    legible: str = _RUNS.sub(r"\1\2", _UNSEEN.sub("", text))
    return legible
