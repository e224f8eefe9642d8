"""What is asked for: a person, a place, a time, a reason."""

from __future__ import annotations

from typing import Final

from router.cache.pair_guard.reading import Reading

ASKED: Final = {"who": "person", "whom": "person", "when": "time", "where": "place", "why": "reason"}
"""What and how are left out: they ask for anything."""


def asked(text: Reading) -> str | None:
    """Returns what the first word of a question asks for; None if that is not sure."""
    return ASKED.get(text.words[0]) if text.words else None


def asks_differ(one: Reading, other: Reading) -> bool:
    """Tells whether both begin with a word that says what is asked for, and the words differ."""
    first, second = asked(one), asked(other)
    return first is not None and second is not None and first != second
