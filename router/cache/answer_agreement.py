"""Decides whether two answers say the same, for the semantic hits whose answer is also generated for comparison. Pure.

The measure is the token F1 of SQuAD (Rajpurkar et al. 2016, section 5): the overlap of the words, without case,
punctuation and articles. Two answers with different numbers, or other tool calls, never say the same.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from router.complete_answer import Answer, ToolCall

MIN_F1 = 0.5
"""The overlap from which two answers count as the same. Answers of a language model to paraphrases vary in wording."""
WORD = re.compile(r"\w+")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
ARTICLES = frozenset({"a", "an", "the"})


def same_answers(ours: Sequence[Answer], theirs: Sequence[Answer]) -> bool:
    """Returns whether each answer of ``ours`` says the same as that of ``theirs`` in the same place."""
    return len(ours) == len(theirs) and all(map(_same, ours, theirs))


def overlap(one: str, other: str) -> float:
    """Returns the token F1 of two texts, 0 to 1; 1 for two texts without words."""
    ours, theirs = Counter(_words(one)), Counter(_words(other))
    if not ours or not theirs:
        return float(ours == theirs)
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total())


def _same(one: Answer, other: Answer) -> bool:
    if not _same_calls(one.tool_calls, other.tool_calls):
        return False
    if set(NUMBER.findall(one.text)) != set(NUMBER.findall(other.text)):
        return False
    return overlap(one.text, other.text) >= MIN_F1


def _same_calls(ones: Sequence[ToolCall], others: Sequence[ToolCall]) -> bool:
    try:
        return list(map(_call, ones)) == list(map(_call, others))
    except RecursionError:  # arguments that are nested too deeply to be compared as JSON
        return [(each.name, each.arguments) for each in ones] == [(each.name, each.arguments) for each in others]


def _words(text: str) -> list[str]:
    return [word for word in WORD.findall(text.casefold()) if word not in ARTICLES]


def _call(call: ToolCall) -> tuple[str, Any]:
    """Returns the name and the arguments of a tool call, as JSON values if they are JSON."""
    try:
        return call.name, json.loads(call.arguments)
    except ValueError:
        return call.name, call.arguments
