"""Measures of a ranking with one relevant item, or several."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence


def recall(ranked: Sequence[str], relevant: Collection[str], depth: int) -> float:
    """Returns 1 if one of ``relevant`` is among the first ``depth`` of ``ranked``, else 0."""
    return float(not set(ranked[:depth]).isdisjoint(relevant))


def ndcg(ranked: Sequence[str], relevant: Collection[str], depth: int) -> float:
    """Returns the normalised discounted cumulative gain at ``depth``, with gains of 0 and 1 (Järvelin and Kekäläinen,
    2002)."""
    gained = sum(1 / math.log2(rank + 1) for rank, item in enumerate(ranked[:depth], 1) if item in relevant)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(relevant), depth) + 1))
    return gained / ideal
