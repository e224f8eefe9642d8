"""Pairs of short runs: their order, and the interval of the ratio of their figures. Pure.

The speed of a shared machine drifts by more than what is to be measured. It drifts slowly, so that the two runs of a
pair have nearly the same machine, and a turned order in every other pair takes away what is left of the drift.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

DRAWS = 10_000
SEED = 1
SHARE = 0.95

Half = TypeVar("Half")
Statistic = Callable[[Sequence[tuple[float, float]]], float]
"""A figure of pairs."""


def order(pair: int, first: Half, second: Half) -> tuple[Half, Half]:
    """Returns the order of the runs of a pair, by its number: A B, B A, A B and so on, in other words ABBA."""
    return (second, first) if pair % 2 else (first, second)


def ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Returns the sum of the first figures of ``pairs`` over the sum of the second ones."""
    return sum(pair[0] for pair in pairs) / sum(pair[1] for pair in pairs)


def median_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Returns the median of the ratios of single pairs: a run that a neighbour of the machine has slowed counts as one
    of many, and not by how much."""
    return statistics.median(first / second for first, second in pairs)


def interval(
    pairs: Sequence[tuple[float, float]],
    draws: int = DRAWS,
    seed: int = SEED,
    statistic: Statistic = ratio,
) -> tuple[float, float]:
    """Returns the 95 % interval of ``statistic`` by the percentile bootstrap: as many pairs as there are, drawn with
    replacement. With fewer than six pairs it is too narrow, and it knows nothing of what was different on another
    day."""
    draw = random.Random(seed)
    found = sorted(statistic(draw.choices(pairs, k=len(pairs))) for _ in range(draws))
    cut = round((1 - SHARE) / 2 * draws)
    return found[cut], found[draws - 1 - cut]
