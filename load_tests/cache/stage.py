"""``Stage``: the semantic cache's decision on pairs, as the service makes it: model, guard, threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cluster.cache.candidate_choice import known_score
from cluster.pair_scorer.pair_model import PairModel
from load_tests.cache.cosines import Cosines
from load_tests.cache.pair_rows import LabelledPair
from router.cache.pair_guard.pair_rules import refusal

BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class Scores:
    """Of labelled pairs, in order. ``cosine``, ``logit`` of the pair model and ``score``, the probability made of both:
    float64 [pairs]. ``refused``: what the guard says of each. ``same``: bool [pairs]."""

    cosine: NDArray[np.float64]
    logit: NDArray[np.float64]
    score: NDArray[np.float64]
    refused: tuple[str | None, ...]
    same: NDArray[np.bool_]

    @property
    def guarded(self) -> NDArray[np.float64]:
        """The scores, minus infinity where the guard refuses."""
        return np.where([reason is None for reason in self.refused], self.score, -np.inf)


class Stage:
    """Scores pairs by the shipped model."""

    def __init__(self, model: PairModel, cosines: Cosines) -> None:
        self._model = model
        self._cosines = cosines

    @classmethod
    def load(cls, directory: Path, cosines: Cosines) -> Stage:
        """Raises OSError, and ArtefactError for files that do not fit together."""
        return cls(PairModel(directory), cosines)

    def scores(self, pairs: Sequence[LabelledPair], progress: Callable[[int], object] = lambda _: None) -> Scores:
        """Returns the scores of pairs. ``progress`` is told of pairs that were scored."""
        cosine = self._cosines([(pair.text_a, pair.text_b) for pair in pairs])
        logit = np.empty(len(pairs))
        order = sorted(range(len(pairs)), key=lambda place: len(pairs[place].text_a) + len(pairs[place].text_b))
        for start in range(0, len(pairs), BATCH):
            batch = order[start : start + BATCH]
            logit[batch] = self._model.logits([(pairs[place].text_a, pairs[place].text_b) for place in batch])
            progress(len(batch))
        return Scores(
            cosine,
            logit,
            self._combined(pairs, logit, cosine),
            tuple(refusal(pair.text_a, pair.text_b) for pair in pairs),
            np.array([pair.same for pair in pairs]),
        )

    def combined(self, pairs: Sequence[LabelledPair], scores: Scores) -> Scores:
        """Returns the scores of ``pairs`` with this stage's combination of model and cosine, both as in ``scores``."""
        return replace(scores, score=self._combined(pairs, scores.logit, scores.cosine))

    def _combined(
        self, pairs: Sequence[LabelledPair], logit: NDArray[np.float64], cosine: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        known = [known_score(pair.text_a, pair.text_b) for pair in pairs]
        scored = zip(known, self._model.combined(logit, cosine), strict=True)
        return np.array([score if same is None else same for same, score in scored])
