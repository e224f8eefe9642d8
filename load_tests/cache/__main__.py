"""``python -m load_tests.cache``: how often the semantic cache takes two questions for the same."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from load_tests.cache.cosines import packaged
from load_tests.cache.figures import at_threshold
from load_tests.cache.pair_rows import LabelledPair, read_pairs
from load_tests.cache.stage import Stage
from router.cache.calibration_table import CalibrationTable
from router.cache.confidence_limit import CONFIDENCE
from router.cache.hit_threshold import threshold_for

MODEL: Final = Path(__file__).resolve().parents[2] / "deployments" / "models" / "cache_pairs"
DESCRIPTION: Final = """\
Judge labelled pairs of questions as the semantic cache of the service does: with the pair model, the guard against
opposite meanings, and the threshold that the shipped calibration sets for a bound on false hits.

--pairs has JSON lines {"text_a": ..., "text_b": ..., "label": 1 for the same question, 0 for another}. Prints and, with
--json, writes {"pairs", "threshold", "recall", "false_hit_rate", ...}. The false-hit rate is of all different pairs.
A threshold of null: the calibration has too few pairs for this bound, and nothing is a hit.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    try:
        table = CalibrationTable.read(options.model / "calibration.json")
        threshold = threshold_for(table, options.max_false_hit_rate, options.confidence)
        with sys.stdin if str(options.pairs) == "-" else options.pairs.open(encoding="utf-8") as lines:
            pairs = read_pairs(lines)
        figures = measured(pairs, threshold, Stage.load(options.model, packaged()))
    except (OSError, ValueError) as error:
        print(f"load_tests.cache: {error}", file=sys.stderr)
        return 2
    text = json.dumps({**figures, "max_false_hit_rate": options.max_false_hit_rate, "version": table.version}, indent=2)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


def measured(pairs: Sequence[LabelledPair], threshold: float, stage: Stage) -> dict[str, Any]:
    """Returns the figures of pairs."""
    with tqdm(total=len(pairs), unit="pairs", disable=not sys.stderr.isatty()) as bar:
        scores = stage.scores(pairs, bar.update)
    guarded, free = (at_threshold(each, scores.same, threshold) for each in (scores.guarded, scores.score))
    return {
        "pairs": len(pairs),
        "threshold": None if math.isinf(threshold) else threshold,
        "recall": guarded.recall,
        "false_hit_rate": guarded.false_hit_rate,
        "without_guard": free._asdict(),
    }


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.cache",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=Path, required=True, help="JSON lines; -: stdin")
    parser.add_argument("--max-false-hit-rate", type=float, default=0.01, help="the bound, between 0 and 1")
    parser.add_argument("--confidence", type=float, default=CONFIDENCE, help="with which the bound is kept")
    parser.add_argument("--model", type=Path, default=MODEL, help="the directory of the pair model")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
