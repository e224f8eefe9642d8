"""The threshold on the pair score from which a stored question counts as a hit, for a bound on the rate of false hits.

A false hit is a pair of different questions that would be taken for the same; its rate is of all different pairs. The
threshold is the lowest at which the upper confidence limit of that rate (Clopper and Pearson) keeps the bound. The
limit rises as the threshold falls: going down until it breaks the bound tests in a fixed order, so that the confidence
holds for the threshold that is chosen (Angelopoulos et al., 2021, arXiv:2110.01052).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from router.cache.calibration_table import DECIMALS, CalibrationTable
from router.cache.confidence_limit import CONFIDENCE, keeps_bound

NEVER = math.inf
"""The threshold where no pair may be a hit."""

STEP = 10.0**-DECIMALS


class Judged(NamedTuple):
    """A look-up whose best candidate was judged by comparing its stored answer with one that was generated too.

    ``score`` is the pair scorer's, 0 to 1; pairs that the guard refuses are left out. ``same``: the stored answer would
    have been right. ``weight`` is 1 / the probability with which look-ups of its kind are judged: of hits the share
    ``shadow_share`` is judged, of near misses the share ``near_miss_share``.
    """

    score: float
    same: bool
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Judgements from live traffic, for recalibration. ``judged`` is a weighted sample of look-ups. ``reported`` are
    the scores of hits that users called wrong. These are no random sample: they can raise the threshold and never lower
    it."""

    judged: Sequence[Judged] = ()
    reported: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on how far live traffic moves the threshold. ``max_raise`` and ``max_lower`` are in logits of the score.

    ``full`` is the number of judged pairs of different questions from which the shipped table is no longer used; with
    fewer, it counts in part. With fewer than ``min_different`` such pairs, the threshold is not lowered.
    """

    max_raise: float = 3.0
    max_lower: float = 0.7
    min_different: float = 300
    full: float = 6000


def threshold_for(table: CalibrationTable, bound: float, confidence: float = CONFIDENCE) -> float:
    """Returns the threshold, 0 to 1, at which the rate of false hits is at most ``bound``; NEVER if the table is too
    small to show such a rate. The table says nothing below its last row, so the score of that row is the lowest
    threshold.

    Raises ValueError for a bound or a confidence outside of 0 to 1.
    """
    _check(bound, confidence)
    falling = [(row.score, float(row.false_hits)) for row in table.rows]
    return _lowest(falling, float(table.different), bound, confidence)


def recalibrated(
    table: CalibrationTable,
    bound: float,
    evidence: Evidence,
    limits: Limits | None = None,
    confidence: float = CONFIDENCE,
) -> float:
    """Returns the threshold at which the rate of false hits is at most ``bound``, by the shipped table and
    ``evidence``.

    ``limits`` None: the defaults. If ``threshold_for`` is NEVER, so is the result. The table's counts and those of
    traffic are added up; the table counts less the more different pairs were judged. The threshold is not lowered
    before about ``limits.min_different`` different pairs were judged. The result is at most ``limits.max_raise`` above
    ``threshold_for`` and ``limits.max_lower`` below it, in logits. Raises ValueError for a bound or a confidence
    outside of 0 to 1, and for scores and weights that are no numbers.
    """
    limits = limits or Limits()
    shipped = threshold_for(table, bound, confidence)
    if shipped == NEVER or not (evidence.judged or evidence.reported):
        return shipped
    different = [pair for pair in evidence.judged if not pair.same]
    if not all(0 <= pair.score <= 1 and 0 < pair.weight < math.inf for pair in different):
        raise ValueError("a judged pair has a score from 0 to 1, and a weight above 0")
    scale = _kish(different)
    judged = scale * sum(pair.weight for pair in different)
    share = max(0.0, 1 - judged / limits.full)
    at: dict[float, float] = defaultdict(float)
    before = 0
    for row in table.rows:
        at[row.score] += share * (row.false_hits - before)
        before = row.false_hits
    for pair in different:
        at[pair.score] += scale * pair.weight
    for score in evidence.reported:
        at[score] += 1
    trials = share * table.different + judged  # without reports: those of low scores would lower the threshold
    falling, total = [], 0.0
    for score in sorted(at, reverse=True):
        total += at[score]
        falling.append((score, total))
    found = _lowest(falling, trials, bound, confidence)
    if judged < limits.min_different:
        found = max(found, shipped)
    return _clamped(found, shipped, limits)


def _check(bound: float, confidence: float) -> None:
    if not (0 < bound < 1 and 0 < confidence < 1):
        raise ValueError("the bound on false hits and the confidence lie between 0 and 1")


def _lowest(falling: Sequence[tuple[float, float]], trials: float, bound: float, confidence: float) -> float:
    """Returns the lowest threshold of which the limit keeps ``bound``.

    ``falling``: scores of different pairs from the highest down, each with the false hits at it.
    """
    if not keeps_bound(0, trials, bound, confidence):
        return NEVER
    kept = bisect_left(falling, True, key=lambda each: not keeps_bound(each[1], trials, bound, confidence))
    return falling[kept][0] + STEP if kept < len(falling) else falling[-1][0]


def _kish(pairs: Sequence[Judged]) -> float:
    """By what weights are multiplied so that they add up to the size of an equal sample (Kish, 1965)."""
    squares = sum(pair.weight**2 for pair in pairs)
    return sum(pair.weight for pair in pairs) / squares if squares else 1.0


def _clamped(found: float, shipped: float, limits: Limits) -> float:
    lowest, highest = (_shifted(shipped, by) for by in (-limits.max_lower, limits.max_raise))
    return min(max(found, lowest), highest)


def _shifted(probability: float, logits: float) -> float:
    if not 0 < probability < 1:
        return probability
    return 1 / (1 + math.exp(-(math.log(probability / (1 - probability)) + logits)))
