"""``read_pairs``: labelled pairs of questions, from JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple


class InputError(ValueError):
    """A line or an option is wrong."""


class LabelledPair(NamedTuple):
    """``same``: whether the answer to one answers the other."""

    text_a: str
    text_b: str
    same: bool


def read_pairs(lines: Iterable[str]) -> list[LabelledPair]:
    """Returns the pairs of JSON lines with "text_a", "text_b" and "label", 1 for the same and 0 for different ones.

    Blank lines are left out; other keys too. Raises InputError, with the number of the line, and for no pairs.
    """
    pairs = [_pair(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not pairs:
        raise InputError("there are no pairs")
    return pairs


def _pair(number: int, line: str) -> LabelledPair:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"line {number}: no JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"line {number}: must be an object")
    for name in ("text_a", "text_b"):
        if not isinstance(row.get(name), str):
            raise InputError(f'line {number}: "{name}" must be a string')
    if row.get("label") not in (0, 1):
        raise InputError(f'line {number}: "label" must be 1, for the same, or 0')
    return LabelledPair(row["text_a"], row["text_b"], bool(row["label"]))
