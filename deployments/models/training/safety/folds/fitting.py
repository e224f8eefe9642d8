"""From the weights of the folds and their mean to config.json and the card."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from deployments.models.training.safety import artefact
from deployments.models.training.safety.evaluation import Figures, figures
from deployments.models.training.safety.example import Example
from deployments.models.training.safety.fit import fit, probabilities
from deployments.models.training.safety.folds.card import Card, Figured
from deployments.models.training.safety.folds.mix import REPLAYED, REPLAYED_STATES
from deployments.models.training.safety.folds.out_of_fold import Judgement, Said, in_turns, judgement
from deployments.models.training.safety.judges import Judge
from deployments.models.training.safety.labels import LABELS
from deployments.models.training.safety.second import artefact as second_artefact
from deployments.models.training.safety.second.cascade import fit_cascade, served
from deployments.models.training.safety.second.opinions import Opinions, opinions
from deployments.models.training.safety.thresholds import FLAG
from safety.classifier.artefact import SecondOpinion
from safety.classifier.second_model import SecondModel
from safety.classifier.window_classifier import WindowClassifier

DEVELOPMENT: Final = 700  # texts of the mix to calibrate with
TUNED: Final = ("ifeval",)
"""Sets that thresholds are fitted to besides those of a training from the base: intents are plainer than what users
write."""
TRAINING: Final = Path(__file__).resolve().parents[1]
PROSE: Final = ("card_prose.md", "folds/card_splits.md", "card_limits.md")


def write_fit(
    folders: Sequence[Path],
    halves: Sequence[Sequence[Example]],
    development: Sequence[Example],
    held_out: Sequence[Judge],
    described: SecondOpinion,
    options: argparse.Namespace,
) -> str:
    """Judges the folds in ``folders`` and their mean in ``options.out``, writes config.json and CARD.md there, and
    returns the card. Raises OSError, ArtefactError and UnsupportedDecoderError."""
    judges = [replace(judge, tuned=judge.tuned or judge.name in TUNED) for judge in held_out]
    folds = [speaker(folder, described, options.base) for folder in folders]
    found = judgement(judges, folds, speaker(options.out, described, options.base))
    said = in_turns(folds, development)
    firsts = {name: each.highest(each.first) for name, each in found.apart.items()}
    alone = fit(development, said.highest(said.first), judges, firsts)
    cascade = fit_cascade(alone.calibration, development, said, judges, found.apart, options.weight)
    config = artefact.config(options.version, alone.calibration, alone.thresholds)
    artefact.write_config(second_artefact.described(config, options.version, described, cascade.mixed), options.out)
    card = Card(
        version=options.version,
        seed=options.seed,
        minutes=(options.minutes, options.second_minutes),
        replayed=(REPLAYED, REPLAYED_STATES),
        trained=[Counter(example.source for example in texts) for texts in halves],
        prose="\n".join((TRAINING / part).read_text(encoding="utf-8") for part in PROSE),
        alone=figured(judges, found, lambda each: each.highest(probabilities(each.first, alone.calibration))),
        fitted=alone,
        second=described,
        weight=options.weight,
        both=figured(judges, found, lambda each: served(each, alone.calibration, cascade.mixed)),
        cascade=cascade,
    ).markdown()
    (options.out / "CARD.md").write_text(card, encoding="utf-8")
    return card


def speaker(folder: Path, described: SecondOpinion, base: Path) -> Said:
    """Returns what asks both models in ``folder``, in int8, as the service does."""
    first = WindowClassifier(folder)
    second = SecondModel(folder, replace(first.artefact, second_opinion=described), base)
    longest = len(described.prefix) + described.max_tokens + 1
    return lambda examples: opinions(first, second, longest, [each.text for each in examples])


def figured(judges: Sequence[Judge], found: Judgement, score: Callable[[Opinions], Tensor]) -> Figured:
    """``score`` returns the scores of texts, [texts, labels], from what was said of their windows."""
    flag = torch.full((len(LABELS),), FLAG)

    def rows(said: Mapping[str, Opinions]) -> list[Figures]:
        return [figures(judge, score(said[judge.name]), flag) for judge in judges]

    return Figured(rows(found.apart), rows(found.shipped))
