"""Instructions about capital and small letters."""

from __future__ import annotations

from load_tests.quality.ifeval.language import is_language
from load_tests.quality.ifeval.relation import Relation, holds
from load_tests.quality.ifeval.text import words


def english_capital(answer: str) -> bool:
    """English, without a small letter."""
    return answer.isupper() and is_language(answer, "en")


def english_lowercase(answer: str) -> bool:
    """English, without a capital letter."""
    return answer.islower() and is_language(answer, "en")


def capital_word_frequency(answer: str, *, capital_relation: Relation, capital_frequency: int) -> bool:
    """``capital_frequency`` words in capitals or more, or fewer; "I" and "A" are such words."""
    return holds(sum(word.isupper() for word in words(answer)), capital_relation, capital_frequency)
