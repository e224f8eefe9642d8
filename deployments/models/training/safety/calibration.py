"""Platt scaling (Platt 1999) by label, and the table that shows how far a score can be taken for a frequency."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MIN_OF_A_KIND = 12  # positives and negatives, below which a label takes the calibration that is given for all
STEPS = 200


def platt(logits: Tensor, target: Tensor) -> tuple[float, float] | None:
    """Fits scale and offset so that ``sigmoid(scale * logit + offset)`` is the frequency of ``target``.

    Both kinds weigh the same: a score of 0.5 is as likely among harmful as among harmless texts. None where there are
    too few of either kind. Both are [texts]; ``target`` may lie between 0 and 1.
    """
    positive = target > 0.5
    counts = int(positive.sum()), int((~positive).sum())
    if min(counts) < MIN_OF_A_KIND:
        return None
    weight = torch.where(positive, 0.5 / counts[0], 0.5 / counts[1])
    parameters = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scaled = parameters[0] * logits + parameters[1]
        losses = functional.binary_cross_entropy_with_logits(scaled, target, reduction="none")
        loss = (losses * weight).sum() + 1e-3 * (parameters[0] - 1) ** 2
        loss.backward()
        return loss

    optimizer.step(closure)
    scale, offset = parameters.detach().tolist()
    return (scale, offset) if scale > 0 else None


def reliability(probability: Tensor, target: Tensor, bins: int = 5) -> list[tuple[float, float, float, int]]:
    """Returns (upper edge, mean score, frequency of harm, texts) of each bin that has a text."""
    rows = []
    place = (probability * bins).long().clamp(max=bins - 1)
    for index in range(bins):
        inside = place == index
        if number := int(inside.sum()):
            rows.append(((index + 1) / bins, float(probability[inside].mean()), float(target[inside].mean()), number))
    return rows
