"""Where each label is flagged: at most a given share of harmless texts, for all labels together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

REVIEW = 0.6
BLOCK = 0.85
FLOOR = 0.5
CEILING = 0.995
STEPS = 30


def flag_thresholds(limits: Sequence[tuple[Tensor, float]], floor: float = FLOOR) -> Tensor:
    """Returns a threshold by label, [labels], so that every limit holds.

    A limit is the scores of harmless texts, [texts, labels], and the share of them that may reach any threshold. Every
    label gets the same quantile of its scores over all these texts, the lowest with which all limits hold, and no label
    a threshold below ``floor``.
    """
    ordered = torch.cat([scores for scores, _ in limits]).sort(dim=0, descending=True).values
    low, high = 0.0, max(budget for _, budget in limits)
    chosen = at_share(ordered, low, floor)
    for _ in range(STEPS):
        share = (low + high) / 2
        candidate = at_share(ordered, share, floor)
        if all(flagged_share(scores, candidate) <= budget for scores, budget in limits):
            low, chosen = share, candidate
        else:
            high = share
    return chosen


def flagged_share(scores: Tensor, flag: Tensor) -> float:
    """The share of texts of which any label reaches its threshold."""
    return float((scores >= flag).any(dim=1).float().mean())


def at_share(ordered: Tensor, share: float, floor: float) -> Tensor:
    """The scores just above those that ``share`` of the texts exceed. ``ordered`` descends along texts."""
    place = min(int(share * len(ordered)), len(ordered) - 1)
    return torch.clamp(ordered[place] + 1e-4, min=floor, max=CEILING)


def bands(flag: float) -> dict[str, float]:
    """The thresholds of one label: from ``review`` on a person decides, from ``block`` on the text is refused."""
    return {"flag": flag, "review": max(REVIEW, flag), "block": max(BLOCK, flag)}
