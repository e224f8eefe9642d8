"""How well the classifier does on each judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deployments.models.training.safety.judges import Judge
from deployments.models.training.safety.labels import INJECTION, LABELS

INJECTION_KINDS = ("injection", "indirect")


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one judge. ``positives`` and ``negatives`` are numbers of texts; what cannot be said without one is None.

    ``recall`` counts texts that any label flags. ``auc`` is that of ``score``, the highest score in relation to its
    threshold.
    """

    judge: str
    kind: str
    tuned: bool
    positives: int
    negatives: int
    auc: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    false_positives: float | None
    own_recall: float | None  # by the injection label alone, where injections are asked for


def figures(judge: Judge, scores: Tensor, flag: Tensor) -> Figures:
    """``scores`` [texts, labels] are probabilities; ``flag`` [labels] are thresholds."""
    truth = torch.tensor([max(example.known.values(), default=0.0) > 0.5 for example in judge.examples])
    flagged = (scores >= flag).any(dim=1)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    hits, alarms = int((flagged & truth).sum()), int((flagged & ~truth).sum())
    both = positives > 0 and negatives > 0
    injection = LABELS.index(INJECTION)
    asks_injection = judge.kind in INJECTION_KINDS
    ranked = scores[:, injection] if asks_injection else excess(scores, flag)
    own = float((scores[truth, injection] >= flag[injection]).float().mean()) if asks_injection and positives else None
    return Figures(
        judge.name,
        judge.kind,
        judge.tuned,
        positives,
        negatives,
        area_under_curve(ranked, truth) if both else None,
        hits / max(1, hits + alarms) if both else None,
        hits / positives if positives else None,
        2 * hits / max(1, 2 * hits + alarms + positives - hits) if both else None,
        alarms / negatives if negatives else None,
        own,
    )


def excess(scores: Tensor, flag: Tensor) -> Tensor:
    """By how much, in logits, the label that comes closest to its threshold exceeds it. Returns [texts]."""
    return (torch.logit(scores, eps=1e-6) - torch.logit(flag, eps=1e-6)).amax(dim=1)


def area_under_curve(score: Tensor, truth: Tensor) -> float:
    """The chance that a harmful text scores higher than a harmless one (ties count half)."""
    score = score.contiguous()
    order = score.sort().values
    below = torch.searchsorted(order, score, right=False)
    upto = torch.searchsorted(order, score, right=True)
    ranks = (below + upto + 1).double() / 2
    positives = int(truth.sum())
    negatives = len(truth) - positives
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def table(rows: Sequence[Figures]) -> str:
    """A Markdown table of ``rows``."""
    head = "| set | asks for | harmful | harmless | AUC | precision | recall | F1 | harmless flagged |"
    lines = [head, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        recall = share(row.recall) + (f" ({share(row.own_recall)})" if row.own_recall is not None else "")
        name = f"{row.judge}\\*" if row.tuned else row.judge
        cells = [
            name,
            row.kind,
            str(row.positives or "–"),
            str(row.negatives or "–"),
            share(row.auc),
            share(row.precision),
            recall,
            share(row.f1),
            share(row.false_positives),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
