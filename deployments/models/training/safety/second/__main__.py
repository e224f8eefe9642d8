"""``python -m deployments.models.training.safety.second``: train and judge the second opinion of the classifier."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from deployments.models.training.safety.__main__ import MODELS, ROOT
from deployments.models.training.safety.example import Example
from deployments.models.training.safety.judges import Judge, judges
from deployments.models.training.safety.mix import read_mix
from deployments.models.training.safety.second import artefact, card
from deployments.models.training.safety.second.cascade import CascadeFit, fit_cascade
from deployments.models.training.safety.second.loop import Recipe, train
from deployments.models.training.safety.second.opinions import Opinions, opinions
from deployments.models.training.safety.second.sequences import Sequences
from deployments.models.training.safety.second.states import States, compute
from deployments.models.training.safety.second.trunk import Trunk
from deployments.models.training.safety.second.upper import Upper
from safety.classifier.artefact import ArtefactError, SecondOpinion
from safety.classifier.second_model import SecondModel
from safety.classifier.window_classifier import WindowClassifier
from safety.decoder.architecture import UnsupportedDecoderError
from safety.decoder.gguf_file import GGUFFile

DESCRIPTION = """\
Train the second opinion of the safety classifier: layers in the middle of SmolLM2-135M, with a head for all labels.

The layers below --first stay as they are, so their states of the whole mix are computed once and kept in --work (45
minutes of one core, 3 GB). The layers from there to --last are trained on these states, for the minutes of each
--round; the head reads the mean and the last of their states. Then both models judge the held-out sets as the service
runs them, the second one where the first is unsure, and their weights, thresholds and figures are written to --out.

With --skip-training the weights in --out are judged.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    try:
        held_out = judges(options.data, options.seed, options.judged)
        mix = read_mix(options.data, judges(options.data, options.seed), options.seed)
        if not options.skip_training:
            train_on(list({each.text: each for each in mix.training}.values()), options)
        sequences = Sequences(GGUFFile(options.base))
        described = artefact.second_opinion(options.name, options.first, options.last, sequences)
        fitted = judged(mix.development[: options.development], held_out, described, options)
    except (OSError, ArtefactError, UnsupportedDecoderError) as error:
        print(error, file=sys.stderr)
        return 2
    artefact.describe(options.out, options.version, described, fitted.mixed)
    path, part = options.out / "CARD.md", card.section(fitted, described, options.weight)
    path.write_text(card.with_section(path.read_text(encoding="utf-8"), part), encoding="utf-8")
    print(part)
    return 0


def train_on(examples: Sequence[Example], options: argparse.Namespace) -> None:
    """Trains on ``examples``, and writes the weights."""
    stored = options.work / "states.pt"
    if stored.exists():
        states = States.load(stored)
    else:
        states = states_of(examples, options)
        states.save(stored)
    upper = Upper(GGUFFile(options.base), options.first, options.last)
    rounds = tuple((minutes, rate) for minutes, rate in options.round) if options.round else Recipe().rounds
    train(upper, states, examples, Recipe(rounds=rounds, seed=options.seed))
    artefact.write_weights(upper, options.out)


def states_of(examples: Sequence[Example], options: argparse.Namespace) -> States:
    """Returns what the trunk makes of ``examples``."""
    sequences = Sequences(GGUFFile(options.base))
    windows = [(number, window) for number, each in enumerate(examples) for window in sequences.training_windows(each)]
    return compute(Trunk(options.base, options.first), windows, sequences.prefix, sequences.end)


def judged(
    development: Sequence[Example], held_out: Sequence[Judge], described: SecondOpinion, options: argparse.Namespace
) -> CascadeFit:
    """Fits and judges the files in ``options.out``."""
    first = WindowClassifier(options.out)
    second = SecondModel(options.out, replace(first.artefact, second_opinion=described), options.base)

    longest = len(described.prefix) + described.max_tokens + 1

    def said(examples: Sequence[Example]) -> Opinions:
        return opinions(first, second, longest, [each.text for each in examples])

    others = {judge.name: said(judge.examples) for judge in held_out}
    alone = artefact.calibration(first.artefact)
    return fit_cascade(alone, development, said(development), held_out, others, options.weight)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.models.training.safety.second",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", type=Path, required=True, metavar="GGUF", help="SmolLM2-135M-Instruct")
    parser.add_argument("--name", default="SmolLM2-135M-Instruct", help="what config.json calls the base")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the data sets")
    parser.add_argument("--out", type=Path, default=MODELS / "safety", help="where the artefact of the classifier is")
    parser.add_argument("--work", type=Path, default=ROOT / ".manta" / "training" / "second", help="the trunk's states")
    parser.add_argument("--first", type=int, default=16, help="the first layer that is trained")
    parser.add_argument("--last", type=int, default=20, help="how many layers the second model has")
    parser.add_argument("--weight", type=float, default=0.5, help="of the second model, from 0 to 1")
    parser.add_argument(
        "--round",
        type=float,
        nargs=2,
        action="append",
        metavar=("MINUTES", "RATE"),
        help="minutes of the processor and peak learning rate of the layers; several follow each other",
    )
    parser.add_argument("--version", default="3", help="what config.json calls this classifier")
    parser.add_argument("--judged", type=int, default=400, help="texts of each judging set, at most")
    parser.add_argument("--development", type=int, default=700, help="texts of the mix to calibrate with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-training", action="store_true")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
