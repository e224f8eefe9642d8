"""Which weights judge which set: each set the fold that was not trained on it.

Sets that no fold was trained on are read by both folds in turns, so that all scores to which thresholds are fitted are
of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from deployments.models.training.safety.example import Example
from deployments.models.training.safety.halves import HALVES
from deployments.models.training.safety.judges import Judge
from deployments.models.training.safety.second.opinions import Opinions

Said = Callable[[Sequence[Example]], Opinions]
"""Returns what the two models of an artefact say of texts."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Opinions by set. ``apart``: those of weights that were not trained on the set. ``shipped``: those of the mean."""

    apart: Mapping[str, Opinions]
    shipped: Mapping[str, Opinions]


def judgement(judges: Sequence[Judge], apart: Sequence[Said], mean: Said) -> Judgement:
    """``apart`` are in the order of HALVES: the first one judges the first half."""

    def judged(judge: Judge) -> Opinions:
        own = [said for half, said in zip(HALVES, apart, strict=True) if judge.name in half.judges]
        return own[0](judge.examples) if own else in_turns(apart, judge.examples)

    return Judgement(
        {judge.name: judged(judge) for judge in judges}, {judge.name: mean(judge.examples) for judge in judges}
    )


def in_turns(said: Sequence[Said], examples: Sequence[Example]) -> Opinions:
    """Returns opinions on ``examples``, which those of ``said`` read in turns, one text each."""
    parts = [each(examples[place :: len(said)]) for place, each in enumerate(said)]
    texts = [part.texts * len(said) + place for place, part in enumerate(parts)]
    return Opinions(
        torch.cat([part.first for part in parts]),
        torch.cat([part.second for part in parts]),
        torch.cat(texts),
        torch.cat([part.whole for part in parts]),
    )


def in_no_half(name: str) -> bool:
    """Whether no fold was trained on the set ``name``."""
    return all(name not in half.judges for half in HALVES)
