"""The two models together: the second one is asked where the first one is unsure, and their logits are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from deployments.models.training.safety.evaluation import figures
from deployments.models.training.safety.example import Example
from deployments.models.training.safety.fit import Fit, calibrate, fit, probabilities, reliability_of, scaled
from deployments.models.training.safety.judges import Judge
from deployments.models.training.safety.labels import LABELS
from deployments.models.training.safety.second.opinions import Opinions
from deployments.models.training.safety.thresholds import FLAG

GATE: Final = 0.2
"""The score of any label, by the first model alone, from which on the second one is asked."""

UNFLAGGED, FLAGGED = -0.5, 15.0
"""In logits: below the threshold of any label, since none is flagged below even odds, and above it."""

Calibration = Mapping[str, tuple[float, float]]
"""Scale and offset by label."""

Mixed = Mapping[str, tuple[float, float, float]]
"""Of each label, what the first logit, the second one and 1 are multiplied by; the sigmoid of their sum is the score of
a window of which both were asked."""


@dataclass(frozen=True, slots=True)
class CascadeFit:
    """``asked``: the share of windows of which the second model was asked, by judge."""

    fitted: Fit
    mixed: Mixed
    asked: Mapping[str, float]


def fit_cascade(
    alone: Calibration,
    development: Sequence[Example],
    development_opinions: Opinions,
    judges: Sequence[Judge],
    said: Mapping[str, Opinions],
    weight: float,
) -> CascadeFit:
    """``alone`` calibrates the first model, which decides what is asked. ``weight``, from 0 to 1, is that of the
    second one."""
    tuned = [judge for judge in judges if judge.tuned]
    examples = [*development, *(example for judge in tuned for example in judge.examples)]
    seen = [development_opinions, *(said[judge.name] for judge in tuned)]
    first = calibrate(examples, torch.cat([each.highest(each.first) for each in seen]))
    second = calibrate(examples, torch.cat([each.highest(each.second) for each in seen]))

    def combined(each: Opinions) -> Tensor:
        one, other = scaled(each.first, first), scaled(each.second, second)
        mean = (1 - weight) * one + weight * other
        # What is not asked is flagged where the first model alone flags it. Below, its place is that of this model.
        flagged = probabilities(each.first, alone) >= FLAG
        rest = torch.where(flagged, one.clamp(min=FLAGGED), one.clamp(max=UNFLAGGED))
        return each.highest(torch.where(gated(each, alone)[:, None], mean, rest))

    fitted = fit(
        development, combined(development_opinions), judges, {name: combined(each) for name, each in said.items()}
    )
    mixed = {label: mixture(label, first, second, fitted, weight) for label in LABELS}
    asked = {name: float(gated(each, alone).float().mean()) for name, each in said.items()}
    scores = {name: served(each, alone, mixed) for name, each in said.items()}
    return CascadeFit(judged(fitted, judges, scores), mixed, asked)


def judged(fitted: Fit, judges: Sequence[Judge], scores: Mapping[str, Tensor]) -> Fit:
    """Returns ``fitted`` with the figures of ``scores``, [texts, labels] by judge, at the thresholds that ship."""
    flag = torch.full((len(LABELS),), FLAG)
    unseen = [judge for judge in judges if not judge.tuned]
    return replace(
        fitted,
        figures=tuple(figures(judge, scores[judge.name], flag) for judge in judges),
        reliability={label: reliability_of(label, unseen, scores) for label in fitted.reliability},
    )


def served(said: Opinions, alone: Calibration, mixed: Mixed) -> Tensor:
    """Returns the scores of texts as the service gives them, [texts, labels]."""
    rows = torch.tensor([mixed[label] for label in LABELS])
    both = torch.sigmoid(rows[:, 0] * said.first + rows[:, 1] * said.second + rows[:, 2])
    return said.highest(torch.where(gated(said, alone)[:, None], both, probabilities(said.first, alone)))


def gated(said: Opinions, alone: Calibration) -> Tensor:
    """Returns which windows the second model is asked of, bool [windows]."""
    return (probabilities(said.first, alone) >= GATE).any(dim=1) & said.whole


def mixture(
    label: str,
    first: Calibration,
    second: Calibration,
    fitted: Fit,
    weight: float,
) -> tuple[float, float, float]:
    """Returns the row of ``label`` in ``Mixed``: a weighted mean of calibrated logits, calibrated again."""
    scale, offset = fitted.calibration[label]
    (one_scale, one_offset), (other_scale, other_offset) = first[label], second[label]
    constant = offset + scale * ((1 - weight) * one_offset + weight * other_offset)
    return scale * (1 - weight) * one_scale, scale * weight * other_scale, constant
