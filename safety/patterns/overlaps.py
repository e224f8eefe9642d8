"""Resolves overlapping matches: the longest wins, then the most specific. Each matched character stays covered by a
match."""

from __future__ import annotations

from bisect import insort
from typing import NamedTuple


class Found(NamedTuple):
    """A match in the whole text. ``continues``: it begins where a long match of the same kind was cut."""

    start: int
    end: int
    kind: str
    specificity: int = 0
    continues: bool = False


def order(found: Found) -> tuple[int, int, int, bool, str]:
    """Returns the sort key of the order of resolution: by start; the longest first, then the most specific, then one
    that does not continue another. The kind decides between equals, so that the order in which they are found, which
    depends on where the text is cut, does not."""
    return found.start, -found.end, -found.specificity, found.continues, found.kind


def resolve(pending: list[Found], decided: int) -> list[Found]:
    """Removes from ``pending``, and returns, the matches that no later match can change.

    ``pending`` is in ``order``. No match that begins before ``decided`` is missing from it. A match within another one
    is dropped; where two overlap in part the less specific one loses the common characters.
    """
    final: list[Found] = []
    while pending and pending[0].end <= decided:
        first = pending.pop(0)
        while pending and pending[0].start < first.end:
            other = pending.pop(0)
            if other.end <= first.end:
                continue
            if other.specificity > first.specificity and other.start > first.start:
                first = first._replace(end=other.start)
                insort(pending, other, key=order)
            else:
                insort(pending, other._replace(start=first.end), key=order)
        final.append(first)
    return final
