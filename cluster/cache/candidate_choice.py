"""``decide``: chooses the candidate that answers a question, or gives the reason why none does. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from router.ports.answer_cache import REFUSED_BY_SCORE, SemanticMatch


class Judged(NamedTuple):
    """A candidate, after both stages and the pair guard.

    ``score`` is that of the pair scorer, from 0 to 1. None: the candidate was not scored, for the reason
    ``refused_by``: that of the guard, or that the pair was found wrong before.
    """

    entry_id: str
    similarity: float
    score: float | None = None
    refused_by: str = ""


SAME_WORDS = 1.0
"""The score of a stored question with the same words. Neither guard nor scorer is asked: the scorer is trained on
questions that differ, and may give equal ones a low score."""


def known_score(question: str, stored: str) -> float | None:
    """Returns the score of a pair of questions of one partition that needs no model; None: guard and scorer decide."""
    return SAME_WORDS if question == stored else None


def decide(candidates: Sequence[Judged], threshold: float) -> SemanticMatch | None:
    """Returns the candidate with the highest score as a hit, if its score reaches ``threshold``.

    Otherwise returns the closest candidate with the reason why it is no hit: the one with the highest score, or, if
    none was scored, the one with the highest similarity. None if there are no candidates.
    """
    scored = [each for each in candidates if each.score is not None]
    if scored:
        best = max(scored, key=lambda each: (each.score or 0.0, each.similarity))
        score = best.score or 0.0
        return SemanticMatch(best.entry_id, best.similarity, score, "" if score >= threshold else REFUSED_BY_SCORE)
    if not candidates:
        return None
    nearest = max(candidates, key=lambda each: each.similarity)
    return SemanticMatch(nearest.entry_id, nearest.similarity, 0.0, nearest.refused_by)
