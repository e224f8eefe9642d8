"""From the weights of the folds and their mean to config.json and the card."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import Tensor

from deployments.models.training.safety import artefact
from deployments.models.training.safety.artefact import averaged
from deployments.models.training.safety.evaluation import Figures, figures
from deployments.models.training.safety.example import Example
from deployments.models.training.safety.fit import Fit, fit, probabilities
from deployments.models.training.safety.folds.card import Card, Figured
from deployments.models.training.safety.folds.mix import REPLAYED, REPLAYED_STATES
from deployments.models.training.safety.folds.out_of_fold import Judgement, Said, judgement
from deployments.models.training.safety.judges import Judge
from deployments.models.training.safety.labels import LABELS
from deployments.models.training.safety.model import Classifier
from deployments.models.training.safety.scoring import of_model, text_logits
from deployments.models.training.safety.second import artefact as second_artefact
from deployments.models.training.safety.second.cascade import fit_cascade, served
from deployments.models.training.safety.second.opinions import Opinions, opinions
from deployments.models.training.safety.thresholds import FLAG
from deployments.models.training.safety.windows import WordPieces
from safety.classifier.artefact import SecondOpinion, read_artefact
from safety.classifier.second_model import SecondModel
from safety.classifier.window_classifier import WindowClassifier

DEVELOPMENT: Final = 700  # texts of the mix to calibrate with
TRAINING: Final = Path(__file__).resolve().parents[1]
COMPARED: Final = 200  # texts on which int8 is compared with float32
PARTS: Final = ("card_prose.md", "folds/card_splits.md", "card_limits.md")


def write_fit(
    folders: Sequence[Path],
    halves: Sequence[Sequence[Example]],
    calm: int,
    development: Sequence[Example],
    held_out: Sequence[Judge],
    options: argparse.Namespace,
) -> str:
    """Judges the weights in ``folders`` and their mean in ``options.out``, writes config.json and CARD.md there, and
    returns the card. Raises OSError, ArtefactError and UnsupportedDecoderError."""
    described = read_artefact(options.start).second_opinion
    if described is None:
        raise ValueError(f"{options.start} has no second opinion")
    mean = speaker(options.out, described, options.base)
    found = judgement(held_out, [speaker(folder, described, options.base) for folder in folders], mean)
    said = mean(development)
    alone = fit(
        development,
        said.highest(said.first),
        held_out,
        {name: each.highest(each.first) for name, each in found.apart.items()},
    )
    cascade = fit_cascade(alone.calibration, development, said, held_out, found.apart, options.weight)
    described_alone = artefact.config(options.version, alone.calibration, alone.thresholds)
    config = second_artefact.described(described_alone, options.version, described, cascade.mixed)
    artefact.write_config(config, options.out)
    card = Card(
        version=options.version,
        seed=options.seed,
        minutes=(*options.minutes, options.second_minutes),
        replayed=(*REPLAYED, REPLAYED_STATES),
        calm=calm,
        trained=[Counter(example.source for example in texts) for texts in halves],
        prose="\n".join((TRAINING / part).read_text(encoding="utf-8") for part in PARTS),
        alone=figured(held_out, found, lambda each: each.highest(probabilities(each.first, alone.calibration))),
        fitted=alone,
        int8_difference=difference(folders, options.out, held_out, found, alone),
        second=described,
        weight=options.weight,
        both=figured(held_out, found, lambda each: served(each, alone.calibration, cascade.mixed)),
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
        return [figures(judge, score(said[judge.name]), flag) for judge in judges if judge.name in said]

    return Figured(rows(found.apart), rows(found.shipped), [rows(said) for said in found.folds])


def difference(
    folders: Sequence[Path], out: Path, judges: Sequence[Judge], found: Judgement, fitted: Fit
) -> tuple[float, float]:
    """By how much the scores of the first model's float32 mean differ from those shipped: at most, and on average."""
    model = Classifier()
    model.load_state_dict(averaged([load_file(folder / "model.safetensors") for folder in folders]))
    judge = max((judge for judge in judges if judge.kind == "content"), key=lambda judge: len(judge.examples))
    texts = [example.text for example in judge.examples[:COMPARED]]
    exact = text_logits(of_model(model), WordPieces(out / "vocab.txt"), texts)
    said = found.shipped[judge.name]
    apart = (
        probabilities(exact, fitted.calibration)
        - probabilities(said.highest(said.first), fitted.calibration)[: len(texts)]
    )
    return float(apart.max()), float(apart.mean())
