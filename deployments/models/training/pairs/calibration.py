"""The combination of the pair model's output with the cosine, and the table that thresholds are taken from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cluster.pair_scorer.artefact import Combination
from load_tests.cache.stage import Scores
from router.cache.calibration_table import CalibrationTable, Scored, tabulated


def combination(scores: Scores) -> Combination:
    """Returns the logistic regression of ``same`` on output and cosine. Neither weight is below 0."""
    known = np.isfinite(scores.logit)
    features = np.stack([scores.logit[known], scores.cosine[known], np.ones(known.sum())], axis=1)
    signs = np.where(scores.same[known], 1.0, -1.0)

    def loss(weights: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, -signs * (features @ weights)).mean())

    found = minimize(loss, np.array([1.0, 1.0, -1.0]), bounds=[(0.05, None), (0, None), (None, None)])
    return Combination(*map(float, found.x))


def table(version: str, scores: Scores) -> CalibrationTable:
    """Returns the table of the pairs, the guard's refusals left out of its rows."""
    scored = zip(scores.score, scores.refused, scores.same, strict=True)
    return tabulated(version, (Scored(None if why else float(score), bool(same)) for score, why, same in scored))
