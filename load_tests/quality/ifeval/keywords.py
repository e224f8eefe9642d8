"""Instructions about words and letters that must, or must not, occur. Capital and small letters are the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

from load_tests.quality.ifeval.relation import Relation, holds


def existence(answer: str, *, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, be it within a longer word: "sneakers" has "sneaker"."""
    folded = answer.casefold()
    return all(keyword.casefold() in folded for keyword in keywords)


def frequency(answer: str, *, relation: Relation, keyword: str, frequency: int) -> bool:
    """The keyword occurs ``frequency`` times or more, or less often; longer words that have it count."""
    return holds(answer.casefold().count(keyword.casefold()), relation, frequency)


def forbidden_words(answer: str, *, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs as a word of its own: "rocket" is not "rock"."""
    return not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", answer, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(answer: str, *, let_relation: Relation, letter: str, let_frequency: int) -> bool:
    """The letter, or another sign such as "#", occurs ``let_frequency`` times or more, or less often.

    Raises ValueError for more than one sign.
    """
    if len(letter) != 1:
        raise ValueError(f"one letter is counted, got {letter!r}")
    return holds(answer.casefold().count(letter.casefold()), let_relation, let_frequency)
