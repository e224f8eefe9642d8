"""``majority_speed_group``: by which speed group a tier is scaled while replicas of several run, as in a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def majority_speed_group(models: Sequence[int], before: int) -> int:
    """Returns the model that more than half of the replicas have, by their numbers in ``models``; ``before``, the one
    that prevailed until now, if none has a majority. 0 is unknown, and counts for none."""
    known = sorted(model for model in models if model)
    most = [model for model, same in groupby(known) if 2 * len(list(same)) > len(known)]
    return most[0] if most else before
