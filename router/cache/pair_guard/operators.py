"""Operators: comparisons, logic and arithmetic, such as ``==`` and ``5 + 3``."""

from __future__ import annotations

import re
from typing import Final

from router.cache.pair_guard.parsed_question import ParsedQuestion

COMPARISON: Final = re.compile(r"(?<=[\w)\]])\s*(===|!==|==|!=|<=|>=|≤|≥|≠|<<|>>|<|>|&&|\|\|)\s*(?=[\w(\[!-])")
ARITHMETIC: Final = re.compile(
    r"(?<=[\w)\]])(?:\s+(\*\*|//|[-+*/×÷^%])\s+|(?<=\d)(\*\*|//|[-+*/×÷^])(?=\d))(?=[\w(\[])"
)
QUOTED: Final = re.compile(r"[\"'`](\W{1,3})[\"'`]")
"""An operator that the question is about: ``what does "&&" do``."""

SAME: Final = {"≤": "<=", "≥": ">=", "≠": "!=", "×": "*", "÷": "/"}


def operators(text: ParsedQuestion) -> frozenset[str]:
    """Returns the operators of a question, each in one spelling. "C++" and "and/or" have none."""
    found = {match[1] for match in COMPARISON.finditer(text.text)}
    found |= {match[1] or match[2] for match in ARITHMETIC.finditer(text.text)}
    found |= {match[1].strip() for match in QUOTED.finditer(text.text)}
    return frozenset(SAME.get(each, each) for each in found)


def operators_differ(one: ParsedQuestion, other: ParsedQuestion) -> bool:
    """Returns whether each question has an operator, as in ``operators``, that the other does not have."""
    first, second = operators(one), operators(other)
    return bool(first - second) and bool(second - first)
