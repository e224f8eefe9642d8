"""``python -m load_tests.dilution``: how much of a long prompt a model still sees, and what shortening it gives."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from engine.api import ContextLengthError
from engine.engine import Engine
from engine.model.location import ModelNotFoundError, locate
from engine.model.source import open_model
from engine.model.spec import UnsupportedModelError
from engine.token_id_tokenizer import load_tokenizer
from load_tests.dilution.haystack import CountTokens, plant
from load_tests.dilution.plot import draw
from load_tests.dilution.report import document, table
from load_tests.dilution.trial import ANSWER_TOKENS, STRATEGIES, STUFFING, Trial, ask
from load_tests.quality.options import MODELS, PACKAGED

LENGTHS = (512, 1_024, 2_048, 4_096)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
FRAME_TOKENS = 96  # left beside the notes for the question and the chat template

DESCRIPTION = """\
Plant one fact in notes of several lengths, at several depths, ask for it, and count the right answers.

A model may read a long prompt and still miss what is in the middle of it (context dilution). Three ways to put the
same question are compared, each with the same notes:

stuffing     all notes are in the prompt
retrieval    the passages that have most to do with the question, up to --budget tokens (policy "retrieve")
compression  the sentences that have most to do with it, in their places, up to --budget tokens (policy "compress")

The table has a row per model, way and length: the share of right answers at each depth (0 %: the fact comes first)
and over all, "kept" (the share of prompts that still have the fact: what retrieval or compression lost itself is not
the model's fault), the mean tokens of the prompt and the mean seconds of an answer. Where stuffing falls and the others
do not, set router.prompts.context_overflow.max_prompt_tokens to the last length at which stuffing holds.

Lengths beyond the context of a model are left out for it. Answers are greedy, so a run can be repeated. What the same
lengths cost in memory and arithmetic, engine.plan says; the command is printed below the table.
"""

EPILOG = """\
examples:
  python -m load_tests.dilution                                    the tier general, up to 4,096 tokens, 2 trials each
  python -m load_tests.dilution --models fast balanced frontier --lengths 128 256 512 768
  python -m load_tests.dilution --models /models/llama --lengths 1024 4096 16384 32000 --trials 10
  python -m load_tests.dilution --json run.json --plot run.png     every trial, and a picture

exit codes:
  0  done
  2  cannot be run: wrong options, no such model
"""


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line. Exits with 2 for invalid options."""
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.dilution",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--models", nargs="+", default=["general"], metavar="NAME", help="embedded tiers, or directories; general")
    add("--lengths", nargs="+", type=int, default=list(LENGTHS), metavar="TOKENS", help=f"of the notes; {LENGTHS}")
    add("--depths", nargs="+", type=float, default=list(DEPTHS), metavar="SHARE", help=f"0 to 1; {DEPTHS}")
    add("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES), metavar="WAY", help="all three")
    add("--trials", type=int, default=2, metavar="N", help="for each length and depth; 2")
    add("--budget", type=int, default=384, metavar="TOKENS", help="of a prompt after retrieval or compression; 384")
    add("--dtype", default="float32", help="the engine's; float32")
    add("--threads", type=int, default=2, metavar="N", help="of the engine; 2")
    add("--json", type=Path, metavar="FILE", help="write settings, cells and trials")
    add("--plot", type=Path, metavar="FILE", help="write a picture")
    add("--no-progress", dest="progress", action="store_false", help="show no progress bar")
    options = parser.parse_args(arguments)
    if min(options.lengths) < 64 or options.trials < 1 or options.budget < 64:
        parser.error("--lengths and --budget are at least 64, --trials at least 1")
    if not all(0 <= depth <= 1 for depth in options.depths):
        parser.error("--depths are between 0 and 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all trials. Returns the exit code."""
    options = options_of(arguments)
    trials: list[Trial] = []
    per_length = len(options.depths) * options.trials * len(options.strategies)
    with tqdm(
        total=len(options.models) * len(options.lengths) * per_length, unit=" answers", disable=not options.progress
    ) as bar:
        for name in options.models:
            try:
                engine = Engine.from_pretrained(
                    path_of(name), dtype=options.dtype, threads=options.threads, max_sequences=1
                )
            except (ModelNotFoundError, UnsupportedModelError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 2
            bar.set_description(name)
            trials += run(engine, name, options, bar)
    print(table(trials))
    print("\nThe cost of these lengths, in memory and arithmetic:")
    for name in options.models:
        lengths = " ".join(map(str, sorted({trial.length for trial in trials if trial.model == name})))
        print(f"  python -m engine.plan {path_of(name)} --lengths {lengths}")
    if options.json is not None:
        settings = {key: each for key, each in vars(options).items() if key not in ("json", "plot", "progress")}
        options.json.write_text(json.dumps(document(trials, settings), indent=1) + "\n", encoding="utf-8")
    if options.plot is not None:
        draw(trials, options.plot)
    return 0


def path_of(name: str) -> str:
    """Returns where the model of a tier, or of a directory, is. Raises ModelNotFoundError."""
    directory = MODELS / name
    if directory.exists():
        return str(locate(str(directory)))
    return str(locate(PACKAGED.get(name, name)))


def run(engine: Engine, name: str, options: argparse.Namespace, bar: tqdm[None]) -> list[Trial]:
    """Returns the trials of one model. Lengths that its context does not hold are left out for stuffing."""
    count = counter(name)
    sample = plant(0, 512, 0.5, count).notes
    ratio = count(sample) / len(sample)
    trials = []
    for length in options.lengths:
        fits = length + FRAME_TOKENS + ANSWER_TOKENS <= engine.model_info.context_length
        for strategy in options.strategies:
            for depth in options.depths:
                for seed in range(options.trials):
                    bar.update()
                    if strategy == STUFFING and not fits:
                        continue
                    planted = plant(seed, length, depth, count)
                    try:
                        trials.append(ask(engine, name, planted, strategy, length, options.budget, ratio))
                    except ContextLengthError as error:
                        tqdm.write(f"{name}, {strategy}, {length}: {error}", file=sys.stderr)
    return trials


def counter(name: str) -> CountTokens:
    """Returns what counts the tokens of a text as the model does."""
    tokenizer = load_tokenizer(open_model(Path(path_of(name))))
    return lambda text: len(tokenizer.encode(text))


if __name__ == "__main__":
    sys.exit(main())
