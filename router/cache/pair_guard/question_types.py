"""What is asked for: a person, a place, a time, a reason."""

from __future__ import annotations

from typing import Final

from router.cache.pair_guard.parsed_question import FUNCTION_WORDS, Reading, own_stems, stem

ASKED: Final = {"who": "person", "whom": "person", "when": "time", "where": "place", "why": "reason"}
"""What and how are left out: they ask for anything."""

FUNCTION_STEMS: Final = frozenset(map(stem, FUNCTION_WORDS))


def asked(text: Reading) -> str | None:
    """Returns what the first word of a question asks for; None if that is not sure."""
    return ASKED.get(text.words[0]) if text.words else None


def asks_differ(one: Reading, other: Reading) -> bool:
    """Tells whether both begin with a word that says what is asked for, the words differ, and all content is the same.

    With other content the question words say little: "Who sells cakes here?" and "Where can I buy a cake here?".
    """
    first, second = asked(one), asked(other)
    if first is None or second is None or first == second:
        return False
    mine, theirs = own_stems(one, other)
    return not (mine | theirs) - FUNCTION_STEMS
