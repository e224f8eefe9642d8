"""The combination of the pair model's output with the cosine, and the table that thresholds are taken from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cluster.pair_scorer.pair_model_files import Combination
from load_tests.cache.stage import Scores
from router.cache.calibration_table import CalibrationTable, Scored, tabulated


def combination(scores: Scores) -> Combination:
    """Returns the logistic regression of ``same`` on output and cosine. No weight is below 0."""
    known = np.isfinite(scores.logit)
    features = np.stack([scores.logit[known], scores.cosine[known]], axis=1)
    return Combination(*_regression(features, scores.same[known]))


def _regression(features: NDArray[np.float64], same: NDArray[np.bool_]) -> list[float]:
    """Returns the weight of each column of features [pairs, columns], none below 0, and the offset."""
    rows = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    signs = np.where(same, 1.0, -1.0)

    def loss(weights: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, -signs * (rows @ weights)).mean())

    columns = features.shape[1]
    found = minimize(loss, np.ones(columns + 1), bounds=[(0.01, None)] * columns + [(None, None)])
    return [float(weight) for weight in found.x]


def table(version: str, scores: Scores) -> CalibrationTable:
    """Returns the table of the pairs, the guard's refusals left out of its rows."""
    scored = zip(scores.score, scores.refused, scores.same, strict=True)
    return tabulated(version, (Scored(None if why else float(score), bool(same)) for score, why, same in scored))
