"""Instructions about an answer made of several parts."""

from __future__ import annotations

import re

SEPARATOR = re.compile(r"\*{6,}")


def repeat_prompt(answer: str, *, prompt_to_repeat: str) -> bool:
    """The answer begins with the request, word for word. Capitals and white space are free."""
    return _plain(answer).startswith(_plain(prompt_to_repeat))


def two_responses(answer: str) -> bool:
    """Two answers that differ, with six asterisks between them, and perhaps before the first or after the last."""
    parts = [part.strip() for part in SEPARATOR.split(answer)]
    given = [part for part in parts if part]
    return all(parts[1:-1]) and len(given) == 2 and given[0] != given[1]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
