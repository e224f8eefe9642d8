"""``PairScorer``: the port to the second stage of the semantic cache, which reads two questions side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Candidate(NamedTuple):
    """A stored question, and the cosine of its embedding with that of the question asked, from -1 to 1."""

    question: str
    cosine: float


class PairScorer(Protocol):
    """A model that estimates how likely it is that two questions ask for the same answer."""

    @property
    def version(self) -> str:
        """The name and version of model and calibration, as ``name@version``. A threshold is valid for one version
        only."""
        ...

    async def score(self, question: str, candidates: Sequence[Candidate]) -> Sequence[float]:
        """Returns, for each candidate in order, the probability, 0 to 1, that it asks for the same answer as
        ``question``.

        The probability does not depend on which of the two was asked first, nor on the other candidates. It is
        independent of ``router.cache.pair_guard``, which may refuse a pair with a high probability. A pair that is too
        long for the model has the probability 0. Raises ValueError for a cosine that is NaN or infinite.
        """
        ...
