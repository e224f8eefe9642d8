"""A scorer of pairs of questions, and a guard, that look at words."""

from __future__ import annotations

from collections.abc import Sequence

from router.ports.pair_scorer import Candidate


class WordScorer:
    """Implements ``PairScorer``: the share of words that two questions have in common. ``asked`` has the candidates of
    each call."""

    version = "words@1"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def score(self, question: str, candidates: Sequence[Candidate]) -> Sequence[float]:
        self.asked.append([each.question for each in candidates])
        words = set(question.lower().split())
        return [len(words & (other := set(each.question.lower().split()))) / len(words | other) for each in candidates]


def no_negation(question: str, candidate: str) -> str | None:
    return "negation" if ("not" in question.split()) != ("not" in candidate.split()) else None
