"""The decisions about a second opinion: which windows it is asked about, and what both models say together. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from safety.api import ClassifierUnavailableError
from safety.classifier.artefact import Blend
from safety.classifier.scoring import NONSENSE, sigmoid

MAX_ASKED = 16
"""The most windows of a text that the second model is asked about: 1.3 s of a core, 1.6 of one whose
windows are cut to the most tokens. It is a bound for
each text, not for each call, so that a text has the same score whatever is asked with it."""


def asked_windows(probabilities: NDArray[np.float64], gate: float, most: int = MAX_ASKED) -> NDArray[np.intp]:
    """Returns the indices of the windows of a text that a second model is asked about, in order: those with a label
    whose probability is at least ``gate``, and of more than ``most`` those with the highest ones.

    ``probabilities`` are the first model's, [windows, labels].
    """
    highest = probabilities.max(axis=1)
    (passed,) = np.nonzero(highest >= gate)  # never one with a NaN, which is refused as a score
    ranked = passed[np.argsort(-highest[passed], kind="stable")]
    return np.sort(ranked[:most])


def blended(first: NDArray[np.float32], second: NDArray[np.float32], blends: Sequence[Blend]) -> NDArray[np.float64]:
    """Returns the probabilities of windows, float64 [windows, labels], from the outputs of both models' heads, of that
    shape. ``blends`` has one for each label.

    Raises ClassifierUnavailableError if an output of the second model is no number.
    """
    if second.shape != first.shape or not np.isfinite(second).all():
        raise ClassifierUnavailableError(f"{NONSENSE}: an output of the second opinion is no number")
    weights = np.array([(each.first, each.second, each.offset) for each in blends])
    return sigmoid(weights[:, 0] * first.astype(np.float64) + weights[:, 1] * second + weights[:, 2])
