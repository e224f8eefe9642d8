"""The upper confidence limit of a rate, after Clopper and Pearson (Biometrika 26, 1934), one-sided."""

from __future__ import annotations

import math
from typing import Final

CONFIDENCE: Final = 0.95
MAX_TERMS: Final = 5000
TINY: Final = 1e-300
PRECISION: Final = 1e-12


def keeps_bound(hits: float, trials: float, bound: float, confidence: float = CONFIDENCE) -> bool:
    """Returns whether the upper confidence limit of the rate ``hits`` / ``trials`` is at most ``bound``, which lies
    between 0 and 1.

    Counts that were weighted may be fractions.
    """
    return hits < trials and incomplete_beta(bound, hits + 1, trials - hits) >= confidence


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Returns the regularised incomplete beta function at ``x``, from 0 to 1; ``a`` and ``b`` are above 0.

    By its continued fraction (Abramowitz and Stegun, 26.5.8), evaluated as Lentz does (Applied Optics 15, 1976).
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction of the other side converges sooner
        return 1 - incomplete_beta(1 - x, b, a)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(logarithm) / a * _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    numerator, denominator = 1.0, _apart(1 - (a + b) * x / (a + 1))
    value = 1 / denominator
    denominator = value
    for term in range(1, MAX_TERMS):
        even = term * (b - term) * x / ((a + 2 * term - 1) * (a + 2 * term))
        odd = -(a + term) * (a + b + term) * x / ((a + 2 * term) * (a + 2 * term + 1))
        for coefficient in (even, odd):
            denominator = 1 / _apart(1 + coefficient * denominator)
            numerator = _apart(1 + coefficient / numerator)
            value *= denominator * numerator
        if abs(denominator * numerator - 1) < PRECISION:
            break
    return value


def _apart(value: float) -> float:
    """Returns ``value``, or a tiny number in the place of 0."""
    return value if abs(value) > TINY else TINY
