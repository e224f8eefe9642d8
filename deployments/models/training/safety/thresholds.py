"""Where each label is flagged: at most a given share of harmless texts, for all labels together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

FLAG = 0.6  # the score at which every label is flagged, and from which on a person reviews
BLOCK = 0.85
FLOOR = 0.0  # in logits: no label is flagged below even odds
STEPS = 30


def flag_thresholds(limits: Sequence[tuple[Tensor, float]], part: Tensor, floor: float = FLOOR) -> Tensor:
    """Returns a threshold by label, [labels], in logits, so that every limit holds.

    A limit is the logits of harmless texts, [texts, labels], and the share of them that may reach any threshold. Every
    label is reached by the share of all these texts that is the greatest with which all limits hold, times its
    ``part``, [labels]. No label gets a threshold below ``floor``.
    """
    ordered = torch.cat([scores for scores, _ in limits]).sort(dim=0, descending=True).values
    low, high = 0.0, max(budget for _, budget in limits)
    chosen = at_share(ordered, low * part, floor)
    for _ in range(STEPS):
        share = (low + high) / 2
        candidate = at_share(ordered, share * part, floor)
        if all(flagged_share(scores, candidate) <= budget for scores, budget in limits):
            low, chosen = share, candidate
        else:
            high = share
    return chosen


def flagged_share(scores: Tensor, flag: Tensor) -> float:
    """The share of texts of which any label reaches its threshold."""
    return float((scores >= flag).any(dim=1).float().mean())


def at_share(ordered: Tensor, share: Tensor, floor: float) -> Tensor:
    """The logits just above those that ``share`` [labels] of the texts exceed. ``ordered`` descends along texts."""
    place = (share * len(ordered)).long().clamp(max=len(ordered) - 1)
    return torch.clamp(ordered.gather(0, place[None, :])[0] + 1e-3, min=floor)


def anchored(calibration: tuple[float, float], threshold: float) -> tuple[float, float]:
    """Shifts a calibration so that the logit ``threshold`` becomes the score FLAG.

    The shift is one of the prior: the share of harmful texts among those of which the score is the probability.
    """
    scale, offset = calibration
    return scale, offset + math.log(FLAG / (1 - FLAG)) - threshold


BANDS = {"flag": FLAG, "review": FLAG, "block": BLOCK}
"""The thresholds of every label: from ``review`` on a person decides, from ``block`` on the text is refused."""
