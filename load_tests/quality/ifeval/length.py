"""Instructions about how long an answer is. ``text.py`` says what a word and a sentence are."""

from __future__ import annotations

import re

from load_tests.quality.ifeval.relation import Relation, holds
from load_tests.quality.ifeval.text import paragraphs, sentences, words

DIVIDER = re.compile(r"(?<!\S)\*\s?\*\s?\*(?!\S)")
FIRST_WORD = re.compile(r"\w+(?:['’-]\w+)*")


def number_words(answer: str, *, relation: Relation, num_words: int) -> bool:
    """``num_words`` words or more, or fewer."""
    return holds(len(words(answer)), relation, num_words)


def number_sentences(answer: str, *, relation: Relation, num_sentences: int) -> bool:
    """``num_sentences`` sentences or more, or fewer."""
    return holds(sentences(answer), relation, num_sentences)


def number_paragraphs(answer: str, *, num_paragraphs: int) -> bool:
    """Exactly ``num_paragraphs`` paragraphs with the divider "***" between them. A divider may also stand before the
    first and after the last."""
    parts = [part.strip() for part in DIVIDER.split(answer.strip())]
    return all(parts[1:-1]) and sum(map(bool, parts)) == num_paragraphs


def nth_paragraph_first_word(answer: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly ``num_paragraphs`` paragraphs with blank lines between them, and the n-th, from 1, begins with the
    word; signs before it, and its capitals, are free."""
    parts = paragraphs(answer)
    if len(parts) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    first = FIRST_WORD.search(parts[nth_paragraph - 1])
    return first is not None and first[0].casefold() == first_word.casefold()
