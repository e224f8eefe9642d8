"""What scores of labelled pairs come to: area under the curve, recall at a rate of false hits, both at a threshold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class AtThreshold(NamedTuple):
    """``recall``: the share of same pairs that are hits; None without same pairs. ``false_hit_rate``: of different
    ones; None without different pairs."""

    recall: float | None
    false_hit_rate: float | None


def at_threshold(scores: NDArray[np.float64], same: NDArray[np.bool_], threshold: float) -> AtThreshold:
    """Returns what a threshold does to pairs. ``scores`` and ``same`` are [pairs]."""
    hits = scores >= threshold
    return AtThreshold(_share(hits[same]), _share(hits[~same]))


def _share(hits: NDArray[np.bool_]) -> float | None:
    return float(hits.mean()) if hits.size else None


def area_under_curve(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """Returns how often a same pair scores higher than a different one, equal scores counted half (Mann and Whitney,
    1947). NaN without pairs of both kinds."""
    positive, negative = np.sort(scores[same]), np.sort(scores[~same])
    if not (positive.size and negative.size):
        return float("nan")
    below = np.searchsorted(negative, positive, side="left") + np.searchsorted(negative, positive, side="right")
    return float(below.mean() / (2 * negative.size))


def recall_at(scores: NDArray[np.float64], same: NDArray[np.bool_], false_hit_rate: float) -> float:
    """Returns the recall where exactly so many of these different pairs would be hits: what a threshold could reach
    that is known afterwards."""
    negative = np.sort(scores[~same])[::-1]
    threshold = negative[min(int(false_hit_rate * negative.size), negative.size - 1)]
    return float((scores[same] > threshold).mean())
