"""The type of a question: whether it asks for a person, a place, a time or a reason."""

from __future__ import annotations

from typing import Final

from router.cache.pair_guard.parsed_question import FUNCTION_WORDS, ParsedQuestion, own_stems, stem

ASKED: Final = {"who": "person", "whom": "person", "when": "time", "where": "place", "why": "reason"}
"""What and how are left out: they ask for anything."""

FUNCTION_STEMS: Final = frozenset(map(stem, FUNCTION_WORDS))


def asked(text: ParsedQuestion) -> str | None:
    """Returns what the first word of a question asks for, such as a person; None if the first word does not decide
    it."""
    return ASKED.get(text.words[0]) if text.words else None


def asks_differ(one: ParsedQuestion, other: ParsedQuestion) -> bool:
    """Returns whether both questions begin with a question word, the two words ask for different things, and all other
    content is the same.

    With other content the question words say little: "Who sells cakes here?" and "Where can I buy a cake here?".
    """
    first, second = asked(one), asked(other)
    if first is None or second is None or first == second:
        return False
    mine, theirs = own_stems(one, other)
    return not (mine | theirs) - FUNCTION_STEMS
