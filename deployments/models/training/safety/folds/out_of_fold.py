"""Which weights judge which set: of each set in a half the fold that was not trained on it, of others the mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deployments.models.training.safety.example import Example
from deployments.models.training.safety.halves import HALVES
from deployments.models.training.safety.judges import Judge
from deployments.models.training.safety.second.opinions import Opinions

Said = Callable[[Sequence[Example]], Opinions]
"""Returns what the two models of an artefact say of texts."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Opinions by set. ``apart``: those of weights that were not trained on the set. ``shipped``: those of the mean.
    ``folds``: of each fold on the sets that no fold was trained on."""

    apart: Mapping[str, Opinions]
    shipped: Mapping[str, Opinions]
    folds: tuple[Mapping[str, Opinions], ...]


def judgement(judges: Sequence[Judge], folds: Sequence[Said], mean: Said) -> Judgement:
    """``folds`` are in the order of HALVES: the first one judges the first half."""
    shipped = {judge.name: mean(judge.examples) for judge in judges}
    apart, beside = dict(shipped), []
    for half, said in zip(HALVES, folds, strict=True):
        apart |= {judge.name: said(judge.examples) for judge in judges if judge.name in half.judges}
        beside.append({judge.name: said(judge.examples) for judge in judges if in_no_half(judge.name)})
    return Judgement(apart, shipped, tuple(beside))


def in_no_half(name: str) -> bool:
    """Whether no fold was trained on the set ``name``."""
    return all(name not in half.judges for half in HALVES)
