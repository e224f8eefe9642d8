"""Instructions about punctuation."""

from __future__ import annotations

COMMAS = ",，،﹐､"  # of Latin, Chinese and Arabic script


def no_comma(answer: str) -> bool:
    """No comma of any script."""
    return not any(comma in answer for comma in COMMAS)
