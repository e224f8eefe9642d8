"""Word order: the same words with two things exchanged, such as "from A to B" and "from B to A"."""

from __future__ import annotations

import re
from typing import Final

from router.cache.pair_guard.parsed_question import FUNCTION_WORDS, ParsedQuestion, listed

EVEN: Final = listed("""
    and or vs versus between both difference differences different differ compare comparison common same similar
    together married related distance
""")
"""Words beside which the order of two things makes no difference."""

MAX_SPAN: Final = 4
"""Words of a thing that changes its place."""

DIRECTED: Final = re.compile(
    r"\bfrom ((?:\w+ )??(?:\w+ )??[\w+#]+) (?:in)?to ((?:\w+ )??[\w+#]+)|\bto ([\w+#]+) from ([\w+#]+)"
)
RELATED: Final = re.compile(r"\b([\w+#]+) (?:in)?(to|than|over|against|before|after) ([\w+#]+)")


def exchanged(one: ParsedQuestion, other: ParsedQuestion) -> bool:
    """Returns whether the two questions are the same but for two exchanged parts, each of at most MAX_SPAN words, with
    words between these. Returns False if they have a word of EVEN.

    Both have the same words then, in the form ``a X b Y c`` and ``a Y b X c``.
    """
    first, second = one.words, other.words
    if len(first) != len(second) or first == second or one.counts != other.counts or EVEN & set(first):
        return False
    start = next(place for place, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    end = len(first) - next(place for place, (a, b) in enumerate(zip(first[::-1], second[::-1], strict=True)) if a != b)
    part, against = first[start:end], second[start:end]
    return any(
        part == against[-there:] + against[here:-there] + against[:here]
        and _content(against[:here])
        and _content(against[-there:])
        for here in range(1, MAX_SPAN + 1)
        for there in range(1, MAX_SPAN + 1)
        if here + there < len(part)
    )


def _content(words: tuple[str, ...]) -> bool:
    return any(word not in FUNCTION_WORDS for word in words)


def directions(text: ParsedQuestion) -> set[tuple[str, str]]:
    """Returns the ordered pairs of words that are connected by "from … to", "to", "than" and the like."""
    joined = " ".join(text.words)
    found = set()
    for match in DIRECTED.finditer(joined):
        ends = (match[1], match[2]) if match[1] else (match[4], match[3])
        found.add((ends[0].split()[-1], ends[1].split()[0]))
    found |= {(match[1], match[3]) for match in RELATED.finditer(joined)}
    return {(a, b) for a, b in found if a not in FUNCTION_WORDS and b not in FUNCTION_WORDS and a != b}


def reversed_direction(one: ParsedQuestion, other: ParsedQuestion) -> bool:
    """Returns whether one question goes from A to B and the other from B to A."""
    second = directions(other)
    return any((b, a) in second and (a, b) not in second for a, b in directions(one))
