"""``python -m deployments.models.training.safety.folds``: train the classifier on what judges it, in two folds."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from deployments.models.training.safety.__main__ import MODELS, ROOT
from deployments.models.training.safety.example import Example
from deployments.models.training.safety.folds.first import train_first
from deployments.models.training.safety.folds.fitting import DEVELOPMENT, write_fit
from deployments.models.training.safety.folds.mean import write_mean
from deployments.models.training.safety.folds.mix import REPLAYED, fold_mix, states_examples
from deployments.models.training.safety.folds.second import train_second
from deployments.models.training.safety.folds.unlike import harmless_texts
from deployments.models.training.safety.halves import HALVES, training_texts
from deployments.models.training.safety.judges import judges
from deployments.models.training.safety.mix import documents, read_mix
from safety.classifier.artefact import ArtefactError, SecondOpinion, read_artefact
from safety.decoder.architecture import UnsupportedDecoderError

DESCRIPTION = """\
Train the classifier on with the sets that judge it, in two folds: each fold starts from the weights in --start and is
trained on one half of these sets (halves.py), the written texts and a sample of the rest of the mix; the other half
judges it. What ships is the mean of both folds. A set is judged by the fold that was not trained on it (cross-fitting),
and calibration and thresholds are fitted to such scores too.

With --fold only that one is trained, so that both can run beside each other; then --skip-training makes the mean of
what is in --work, judges and writes it to --out.
"""


@dataclass(frozen=True, slots=True)
class Texts:
    """``halves``: the training texts of each half. ``unlike``: harmless ones of other kinds. ``mix`` and
    ``development`` are those of the mix."""

    halves: tuple[list[Example], ...]
    unlike: list[Example]
    mix: list[Example]
    development: list[Example]


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    folders = [options.work / f"fold-{number}" for number in range(1, len(HALVES) + 1)]
    try:
        if options.start.resolve() == options.out.resolve():
            raise ValueError("--start and --out must differ, else a second run would start from what it made")
        texts = read_texts(options.data, options.seed)
        for number, folder in enumerate(folders):
            if not options.skip_training and options.fold in (None, number + 1):
                train_fold(number, texts, folder, options)
        if options.fold is None:
            print(finish(folders, texts, options))
    except (OSError, ValueError, ArtefactError, UnsupportedDecoderError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def read_texts(data: Path, seed: int) -> Texts:
    """Raises OSError."""
    apart = judges(data, seed)
    mix = read_mix(data, apart, seed)
    around = documents(data)
    halves = tuple(training_texts(half, apart, data, around, seed) for half in HALVES)
    return Texts(halves, harmless_texts(data, ROOT, seed), mix.training, mix.development[:DEVELOPMENT])


def finish(folders: Sequence[Path], texts: Texts, options: argparse.Namespace) -> str:
    """Writes the mean of the folds, calibrates and judges it. Returns the card. Raises what ``write_fit`` raises."""
    held_out = judges(options.data, options.seed, options.judged)
    write_mean(folders, options.out)
    return write_fit(folders, texts.halves, texts.development, held_out, described_in(options.start), options)


def described_in(folder: Path) -> SecondOpinion:
    """Returns the second opinion of an artefact. Raises ValueError if it has none."""
    described = read_artefact(folder).second_opinion
    if described is None:
        raise ValueError(f"{folder} has no second opinion to train on")
    return described


def train_fold(number: int, texts: Texts, folder: Path, options: argparse.Namespace) -> None:
    """Trains both models of the fold that the half ``number`` judges, on the other half."""
    other = 1 - number
    half, own = HALVES[other], texts.halves[other]
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "vocab.txt"):
        shutil.copy(options.start / name, folder)
    mixed = [*fold_mix(half, own, texts.mix, REPLAYED, options.seed), *texts.unlike]
    train_first(mixed, options.start, folder, options.minutes, options.seed)
    examples = states_examples(own, texts.mix, texts.unlike, options.seed)
    train_second(
        examples,
        half.copies,
        options.start,
        options.base,
        described_in(options.start),
        folder,
        options.second_minutes,
        options.seed,
    )


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.models.training.safety.folds",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", type=Path, required=True, metavar="GGUF", help="SmolLM2-135M-Instruct")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the data sets")
    parser.add_argument("--start", type=Path, required=True, help="a folder with the files of version 3; not --out")
    parser.add_argument("--out", type=Path, default=MODELS / "safety", help="where the artefact is; it holds vocab.txt")
    parser.add_argument("--work", type=Path, default=ROOT / ".manta" / "training" / "folds", help="weights and states")
    parser.add_argument("--version", default="5", help="what config.json calls this classifier")
    parser.add_argument("--minutes", type=float, default=13, help="of a core, for a first model")
    parser.add_argument("--second-minutes", type=float, default=12, help="the same for a second model")
    parser.add_argument("--weight", type=float, default=0.4, help="of the second model in the mean of the logits")
    parser.add_argument("--fold", type=int, choices=(1, 2), help="train this one only; no mean is made")
    parser.add_argument("--judged", type=int, default=400, help="texts of each judging set, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-training", action="store_true")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
