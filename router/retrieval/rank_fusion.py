"""Rankings, and their fusion by reciprocal ranks. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def ranking(scores: NDArray[np.float32], depth: int, minimum: float) -> list[int]:
    """Returns the rows with the ``depth`` highest of ``scores`` above ``minimum``, best first. Rows with equal scores
    keep their order.

    ``scores``: float32 [rows].
    """
    if len(scores) > 4 * depth:
        limit = np.partition(scores, -depth)[-depth]
        minimum = max(minimum, float(np.nextafter(limit, np.float32(-np.inf))))
    rows = np.flatnonzero(scores > minimum)
    order = np.argsort(-scores[rows], kind="stable")[:depth]
    return [int(row) for row in rows[order]]


def fused(rankings: Sequence[Sequence[int]], weights: Sequence[float], k: float) -> dict[int, float]:
    """Returns the fused score of each row in ``rankings``, best first. Rows with equal scores are in the order of their
    numbers.

    The score is the sum of weight / (k + rank) over the rankings that have the row, with ranks from 1: reciprocal rank
    fusion, Cormack, Clarke and Büttcher (SIGIR 2009).
    """
    scores: defaultdict[int, float] = defaultdict(float)
    for rows, weight in zip(rankings, weights, strict=True):
        for rank, row in enumerate(rows, 1):
            scores[row] += weight / (k + rank)
    return dict(sorted(scores.items(), key=lambda each: (-each[1], each[0])))
