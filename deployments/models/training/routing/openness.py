"""Adds the tier that open requests go to: one logistic regression, of whether a request is open.

A sum tells open requests from tasks better than hidden units do that are trained with it: it keeps what rare words say.
Two kinds of inputs add up to it, which err on different requests: words, pairs and signs on words that are unknown,
character n-grams on short ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit

from deployments.models.training.routing.network import MIN_OCCURRENCES, Key
from router.tiers.character_grams import GRAM_BUCKETS, CharacterGrams
from router.tiers.quality_forecast import Features, Forecaster, HiddenUnits, unknown_signs

PENALTY = 1e-5  # of squared weights, beside the mean log loss
STEPS = 250

Vector = npt.NDArray[np.float64]


def with_open_tier(forecaster: Forecaster, tier: str, seen: Sequence[Features], opened: Sequence[bool]) -> Forecaster:
    """Returns ``forecaster`` with ``tier`` as its last, whose chance is that a request is open. ``seen`` and ``opened``
    say of each request what it is like and whether it is. The same result for the same arguments on one machine."""
    seen = [replace(each, signs=(*each.signs, *unknown_signs(each, forecaster.known))) for each in seen]
    counts: Counter[Key] = Counter()
    for each in seen:
        counts.update(each.words)
        counts.update(each.signs)
    frequent = sorted((key for key, count in counts.items() if count >= MIN_OCCURRENCES), key=str)
    columns = {key: column for column, key in enumerate(frequent)}
    inputs = sparse.hstack([_words_and_signs(seen, columns), _grams(seen)], format="csr")
    weights, bias = _regressed(inputs, np.array(opened, dtype=np.float64))
    added = {key: float(weights[column]) for key, column in columns.items()}
    none = (0.0,) * (len(forecaster.hidden.bias) + len(forecaster.tiers))
    signs = {key for key in added if isinstance(key, str)} | set(forecaster.signs)
    words = {key for key in added if isinstance(key, int)} | set(forecaster.words)
    return replace(
        forecaster,
        tiers=(*forecaster.tiers, tier),
        bias=(*forecaster.bias, bias),
        signs={key: (*forecaster.signs.get(key, none), added.get(key, 0.0)) for key in sorted(signs)},
        words={key: (*forecaster.words.get(key, none), added.get(key, 0.0)) for key in sorted(words)},
        hidden=HiddenUnits(forecaster.hidden.bias, tuple((*row, 0.0) for row in forecaster.hidden.weights)),
        grams=CharacterGrams.rounded(weights[len(columns) :]),
    )


def _words_and_signs(seen: Sequence[Features], columns: dict[Key, int]) -> sparse.csr_matrix:
    """Requests by words (each 1 / sqrt of their number, as the forecaster has it) and signs."""
    starts: list[int] = [0]
    places: list[int] = []
    values: list[float] = []
    for each in seen:
        share = 1 / math.sqrt(len(each.words) or 1)
        active: dict[Key, float] = {**dict.fromkeys(sorted(each.words), share), **dict.fromkeys(each.signs, 1.0)}
        known = {columns[key]: value for key, value in active.items() if key in columns}
        places.extend(known)
        values.extend(known.values())
        starts.append(len(places))
    return sparse.csr_matrix((values, places, starts), shape=(len(seen), len(columns)))


def _grams(seen: Sequence[Features]) -> sparse.csr_matrix:
    """Requests by buckets of character n-grams: how often each occurs, by the square root of the number of all."""
    starts: list[int] = [0]
    places: list[npt.NDArray[np.uint16]] = []
    values: list[Vector] = []
    for each in seen:
        grams = np.frombuffer(each.grams, dtype=np.uint16)
        buckets, counts = np.unique(grams, return_counts=True)
        places.append(buckets)
        values.append(counts / math.sqrt(len(grams) or 1))
        starts.append(starts[-1] + len(buckets))
    return sparse.csr_matrix((np.concatenate(values), np.concatenate(places), starts), shape=(len(seen), GRAM_BUCKETS))


def _regressed(inputs: sparse.csr_matrix, outcomes: Vector) -> tuple[Vector, float]:
    """The weights and the bias of the logistic regression."""
    transposed = inputs.T.tocsr()

    def loss(point: Vector) -> tuple[float, Vector]:
        weights = point[:-1]
        odds = inputs @ weights + point[-1]
        missed = (expit(odds) - outcomes) / len(outcomes)
        value = np.mean(np.logaddexp(0.0, odds) - outcomes * odds) + PENALTY * weights @ weights
        return float(value), np.append(transposed @ missed + 2 * PENALTY * weights, missed.sum())

    start = np.zeros(inputs.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "gtol": 1e-6})
    return found.x[:-1], float(found.x[-1])
