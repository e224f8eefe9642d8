"""Converts the outputs of the classifier's head to ``Scores``, and checks that scores are probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from safety.api import ClassifierUnavailableError, Scores
from safety.classifier.artefact import Artefact, categories

NONSENSE = "the classifier is answering nonsense"


def probabilities(logits: NDArray[np.float32], artefact: Artefact) -> NDArray[np.float64]:
    """Returns the calibrated probabilities of windows, float64 [windows, labels], from the head's outputs of that
    shape."""
    scale = np.array([label.scale for label in artefact.labels])
    offset = np.array([label.offset for label in artefact.labels])
    return sigmoid(scale * logits.astype(np.float64) + offset)


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the probabilities of log odds."""
    result: NDArray[np.float64] = 0.5 * (1 + np.tanh(0.5 * logits))  # the hyperbolic tangent does not overflow
    return result


def scores_of(windows: NDArray[np.float64], artefact: Artefact) -> Scores:
    """Returns the scores of a text from the probabilities of its windows, [windows, labels]: the maximum over the
    windows for each label.

    Raises ClassifierUnavailableError for a score that is no probability.
    """
    worst = windows.max(axis=0)  # NaN if one of them is
    check_probabilities(worst.tolist())
    return Scores(
        categories={name: float(worst[place]) for name, place in categories(artefact).items()},
        injection=float(worst[artefact.injection]),
        flagged=bool(any(score >= label.flag for score, label in zip(worst, artefact.labels, strict=True))),
    )


def check_scores(answer: object, texts: int) -> Sequence[Scores]:
    """Returns ``answer`` if it is a list of ``texts`` scores. Raises ClassifierUnavailableError for anything else,
    and for a score that is no probability: NaN is below every threshold, so a malformed answer would let everything
    pass."""
    if not isinstance(answer, list) or not all(isinstance(each, Scores) for each in answer):
        raise ClassifierUnavailableError(NONSENSE)
    if len(answer) != texts:
        raise ClassifierUnavailableError(f"{NONSENSE}: scores of {len(answer)} texts instead of {texts}")
    for scores in answer:
        if not scores.categories:
            raise ClassifierUnavailableError(f"{NONSENSE}: no categories")
        check_probabilities([scores.injection, *scores.categories.values()])
    return answer


def check_probabilities(values: Sequence[object]) -> None:
    """Raises ClassifierUnavailableError unless all values are numbers from 0 to 1."""
    for value in values:
        if not isinstance(value, float) or not 0 <= value <= 1:
            raise ClassifierUnavailableError(f"{NONSENSE}: a score is {value}")
