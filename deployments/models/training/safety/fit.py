"""From a trained classifier to calibration, thresholds and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deployments.models.training.safety.calibration import platt, reliability
from deployments.models.training.safety.evaluation import Figures, figures
from deployments.models.training.safety.example import Example
from deployments.models.training.safety.judges import Judge
from deployments.models.training.safety.labels import HARMFUL, INJECTION, LABELS
from deployments.models.training.safety.thresholds import BANDS, FLAG, anchored, flag_thresholds

EVERYDAY_BUDGET = 0.008  # of everyday requests in the tuning sets, so that 1 % holds outside of them
BORDERLINE_BUDGET = 0.05  # of harmless requests that look harmful
PART = torch.tensor([{HARMFUL: 1.0, INJECTION: 0.35}.get(label, 0.25) for label in LABELS])
"""What each label may take of the budgets: most goes to the label that knows the most examples, and less to injections,
whose scores are the least reliable."""


@dataclass(frozen=True, slots=True)
class Fit:
    """``calibration``: scale and offset by label, with which every label is flagged at FLAG. ``balanced``: the scores
    that this threshold comes to where harmful and harmless texts are equally many, by label. ``reliability``: rows by
    label, on sets that nothing was fitted to."""

    calibration: Mapping[str, tuple[float, float]]
    balanced: Mapping[str, float]
    figures: tuple[Figures, ...]
    reliability: Mapping[str, list[tuple[float, float, float, int]]]

    @property
    def thresholds(self) -> dict[str, dict[str, float]]:
        return {label: dict(BANDS) for label in LABELS}


def fit(
    development: Sequence[Example], development_logits: Tensor, judges: Sequence[Judge], logits: Mapping[str, Tensor]
) -> Fit:
    """Calibrates on the development texts and the tuning sets, sets the thresholds, and judges.

    ``development_logits`` and ``logits`` of each judge are [texts, labels].
    """
    tuned = [judge for judge in judges if judge.tuned]
    examples = [*development, *(example for judge in tuned for example in judge.examples)]
    seen = torch.cat([development_logits, *(logits[judge.name] for judge in tuned)])
    balanced = calibrate(examples, seen)
    scores = {judge.name: scaled(logits[judge.name], balanced) for judge in tuned}
    limits = [
        (torch.cat([scores[judge.name] for judge in tuned if judge.kind == kind]), budget)
        for kind, budget in (("everyday", EVERYDAY_BUDGET), ("borderline", BORDERLINE_BUDGET))
    ]
    at = dict(zip(LABELS, flag_thresholds(limits, PART).tolist(), strict=True))
    calibration = {label: anchored(balanced[label], at[label]) for label in LABELS}
    final = {name: probabilities(values, calibration) for name, values in logits.items()}
    flag = torch.full((len(LABELS),), FLAG)
    unseen = [judge for judge in judges if not judge.tuned]
    return Fit(
        calibration,
        {label: 1 / (1 + math.exp(-value)) for label, value in at.items()},
        tuple(figures(judge, final[judge.name], flag) for judge in judges),
        {label: reliability_of(label, unseen, final) for label in (HARMFUL, INJECTION, "hate")},
    )


def calibrate(examples: Sequence[Example], logits: Tensor) -> dict[str, tuple[float, float]]:
    """Fits each label where it is known. One with too few examples keeps the odds that it was trained to give."""
    fitted = {}
    for place, label in enumerate(LABELS):
        known = [row for row, example in enumerate(examples) if label in example.known]
        target = torch.tensor([examples[row].known[label] for row in known])
        fitted[label] = platt(logits[known, place], target) or (1.0, 0.0)
    return fitted


def scaled(logits: Tensor, calibration: Mapping[str, tuple[float, float]]) -> Tensor:
    """Returns scale * logit + offset, in the shape of ``logits``, [texts, labels]."""
    pairs = torch.tensor([calibration[label] for label in LABELS])
    return logits * pairs[:, 0] + pairs[:, 1]


def probabilities(logits: Tensor, calibration: Mapping[str, tuple[float, float]]) -> Tensor:
    """Returns the scores of texts, [texts, labels], from their logits in that shape."""
    return torch.sigmoid(scaled(logits, calibration))


def reliability_of(
    label: str, judges: Sequence[Judge], scores: Mapping[str, Tensor]
) -> list[tuple[float, float, float, int]]:
    """The reliability of one label over all texts of ``judges`` of which it is known."""
    place = LABELS.index(label)
    known = [
        (float(scores[judge.name][row, place]), example.known[label])
        for judge in judges
        for row, example in enumerate(judge.examples)
        if label in example.known
    ]
    if not known:
        return []
    probability, target = torch.tensor(known).T
    return reliability(probability, target)
