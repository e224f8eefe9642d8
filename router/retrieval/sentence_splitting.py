"""Sentences of a text, as offsets. Pure.

A sentence ends at a full stop, a question or exclamation mark with white space behind it, at the marks of Chinese and
Japanese, at an empty line, and before an item of a list or a row of a table.
"""

from __future__ import annotations

import re

# A run of marks is looked at from its first one alone: from each of them, a million marks in a row would take hours.
END = re.compile(
    r"""(?P<stop>(?<![.!?…])[.!?…]+["'”’»)\]]*)(?=\s|$)   # Latin
    |(?P<wide>[。！？；]+["”’」』）]*)           # Chinese, Japanese
    |(?P<gap>\n\s*\n)
    |(?P<item>\n(?=[ \t]*(?:[-*+•]|\d{1,3}[.)]|\|)[ \t]?\S))""",
    re.VERBOSE,
)
ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|cf|al|approx|dept|est|fig|figs|inc|ltd|co|corp|no|nos|vol|pp"
    r"|ca|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|Mt|Gen|Col|Lt|Sgt|Capt|Rev|Hon|bzw|usw|Nr|Abs)"
    r"|[A-Za-z]\.[A-Za-z])\.$",
    re.IGNORECASE,
)
MAX_LOOKBACK = 16  # characters before a full stop in which an abbreviation is looked for

Offsets = tuple[int, int]


def sentences(text: str, start: int = 0, end: int | None = None) -> list[Offsets]:
    """Returns the sentences of ``text[start:end]``, without the white space around them, as offsets into ``text``."""
    end = len(text) if end is None else end
    found, begin = [], start
    for match in END.finditer(text, start, end):
        if match.lastgroup == "stop" and not _ends(text, begin, match, end):
            continue
        found.append((begin, match.end()))
        begin = match.end()
    found.append((begin, end))
    return [span for span in (stripped(text, *each) for each in found) if span[0] < span[1]]


def stripped(text: str, start: int, end: int) -> Offsets:
    """Returns the offsets of ``text[start:end]`` without the white space at its ends."""
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    return start + left, start + max(left, len(piece.rstrip()))


def _ends(text: str, begin: int, match: re.Match[str], end: int) -> bool:
    """Returns whether the mark at ``match`` ends a sentence, and not only an abbreviation, an initial or a number."""
    if match["stop"] != ".":
        return True
    rest = text[match.end() : min(match.end() + 8, end)].lstrip()
    if rest[:1].islower():
        return False
    before = text[max(begin, match.start() - MAX_LOOKBACK) : match.start() + 1]
    if re.fullmatch(r"\s*\d{1,3}\.", before):  # the number of an item
        return False
    return ABBREVIATION.search(before) is None or "\n" in text[match.end() : match.end() + 2]
