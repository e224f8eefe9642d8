"""``Recogniser``: the pattern of one kind of value, and the validation of candidates."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import regex

MAX_CONTEXT = 96  # characters before a candidate that lookbehinds and validators may read

START = r"(?:(?<!\w)|(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4}))(?<!\\(?=[nrtbf]|u[0-9a-fA-F]{4}))"
r"""Where a word begins, in plain text and within a JSON string: ``\n`` before a word is an escape, not its letter."""

NUMBER = r"(?<!\d)"  # where a number begins

NEVER = "\U0010ffff"  # a noncharacter; Python text may hold it, and then a growing match is only taken for a whole one


class Candidate(NamedTuple):
    """A match of a recogniser's pattern, in the text that was searched, with the ``context`` before it."""

    match: regex.Match[str]
    context: str

    @property
    def text(self) -> str:
        """The matched characters."""
        return str(self.match[0])


Extent = tuple[int, int]
"""The characters of a candidate that are the value, counted from the beginning of the candidate."""

Validator = Callable[[Candidate], Extent | None]
"""Returns where the value is within a candidate; None if there is none."""


def whole(candidate: Candidate) -> Extent:
    """Returns the extent of the whole candidate: the validator that accepts every match."""
    return 0, len(candidate.text)


@dataclass(frozen=True)
class Recogniser:
    r"""A recogniser of one kind of value.

    ``pattern`` is of the ``regex`` library and matches ``max_length`` characters at most, lookahead included.
    ``gate`` is a cheap pattern of ``re``. After ``boundary`` it matches at each start at which ``pattern`` matches, or
    at which the text ends (``\Z``) before that is known. ``pattern`` is tried only there. Recognisers of the same
    ``boundary`` share one search for their starts.
    ``specificity`` decides between overlapping matches.
    ``more`` matches the next 1 to ``MAX_MORE`` characters of a value whose match reached ``run_length`` characters:
    such a run is reported in parts, so that it is neither held without bound nor sent.
    """

    kind: str
    pattern: str
    max_length: int
    gate: str
    boundary: str = START
    specificity: int = 0
    validate: Validator = whole
    more: str | None = None
    run_length: int = 0

    @cached_property
    def gated(self) -> re.Pattern[str]:
        """The compiled ``gate``: a cheap test of whether a value may begin at a place."""
        return re.compile(self.gate)

    @cached_property
    def matched(self) -> regex.Pattern[str]:
        """The compiled ``pattern``: matches a candidate, which ``validate`` then accepts or rejects."""
        return regex.compile(self.pattern)

    @cached_property
    def growing(self) -> regex.Pattern[str]:
        """The pattern of ``growing`` for ``pattern``: it matches, partially and never fully, a text that further
        characters can turn into a match or a longer match."""
        return growing(self.pattern)

    @cached_property
    def continued(self) -> regex.Pattern[str] | None:
        """The compiled ``more``: matches the next part of a value that is longer than one match. None if ``more`` is
        None: then no value of this kind is reported in parts."""
        return None if self.more is None else regex.compile(self.more)

    @cached_property
    def continuing(self) -> regex.Pattern[str]:
        """The pattern of ``growing`` for ``more``: it matches partially where further characters can belong to the next
        part. Without ``more`` it matches the end of the text alone."""
        return growing(self.more or "")


MAX_MORE = 512  # characters


def growing(pattern: str) -> regex.Pattern[str]:
    """Returns ``pattern`` followed by a character that no text has.

    A partial match of it from ``start`` to the end of a text means that more characters could complete or lengthen a
    match of ``pattern`` that begins at ``start``.
    """
    return regex.compile(f"(?:{pattern}){NEVER}")


def in_context(words: str, reach: int = 56) -> Callable[[str], bool]:
    """Returns a function that tests whether the pattern ``words`` matches in the last ``reach`` characters before a
    candidate. Words that begin with one of them match too, unless the pattern says where they end."""
    distance = distance_in_context(words, reach)
    return lambda context: distance(context) is not None


def distance_in_context(words: str, reach: int = 56) -> Callable[[str], int | None]:
    """Returns a function as ``in_context`` does, which returns the characters between the beginning of the last match
    and the candidate; None: there is no match."""
    last = regex.compile(rf"(?<!\p{{L}})(?:{words})", regex.IGNORECASE | regex.REVERSE)

    def distance(context: str) -> int | None:
        near = context[-reach:]
        found = last.search(near)
        return None if found is None else len(near) - found.start()

    return distance
