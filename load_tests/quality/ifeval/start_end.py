"""Instructions about how an answer begins and ends."""

from __future__ import annotations

QUOTES = {'"': '"', "“": "”"}


def end_checker(answer: str, *, end_phrase: str) -> bool:
    """The answer ends with the phrase and nothing after it but a quotation mark. Capitals are free."""
    return answer.strip().rstrip('"”').rstrip().casefold().endswith(end_phrase.strip().casefold())


def quotation(answer: str) -> bool:
    """The whole answer is between double quotation marks, straight or curly."""
    said = answer.strip()
    return len(said) > 2 and QUOTES.get(said[0]) == said[-1]
