"""``python -m load_tests.quality``: how much the tiers get right, and whether it is still as much as it was."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from engine.config import DeviceName, DTypeName
from engine.model.spec import UnsupportedModelError
from load_tests.quality.baseline import Baseline, dump, make_baseline, read_baseline
from load_tests.quality.change import changes, different
from load_tests.quality.item import HeldOut, read_held_out, stratified
from load_tests.quality.offline import ask_engines
from load_tests.quality.options import AUTO, BASELINE, HELD_OUT, MODELS, QualityOptions
from load_tests.quality.outcome import Outcome
from load_tests.quality.plot import draw
from load_tests.quality.report import as_json, table
from load_tests.quality.score import reports
from load_tests.quality.server import UnreachableError, ask_server
from load_tests.quality.size import parameters

TIERS = ("fast", "balanced", "frontier")

DESCRIPTION = f"""\
Put a held-out set of questions to the tiers and count what they get right.

Each question belongs to a family (extraction, arithmetic, ...) and a level (1 is easiest) and has one right answer:
a reply is right if it is that answer, or ends in a line "Answer: ..." that says it. Answers are greedy, so a run
can be repeated.

Through a server:   --url URL     as users do; "auto" is the router's choice, and the table says whom it chose
Without one:        --engine      the same models in this process, from --models-dir

The table has a row per family and a column per level. "compute" is tokens times parameters of the tier that
answered, over all requests: what the right answers cost, and what "auto" saves against "frontier".

The baseline ({BASELINE}) remembers which items each tier had right. --baseline compares on the same items; a net
loss of more than 2 points overall or 8 in a family is a fall. It holds for one held-out file and one set of models:
write it again, and look at the difference, whenever either changes.
"""

EPILOG = f"""\
examples:
  python -m load_tests.quality --engine                           all three tiers, no server needed
  python -m load_tests.quality --engine --limit 5 --models fast   a quick look: 5 items of each family and level
  python -m load_tests.quality --url http://127.0.0.1:8000        against `make serve`, auto included
  python -m load_tests.quality --engine --baseline                still as good as {BASELINE}?
  python -m load_tests.quality --engine --write-baseline          the models or the held-out set have changed
  python -m load_tests.quality --json run.json --plot run.png     every reply, and a picture

exit codes:
  0  done, and nothing fell
  1  a tier fell below the baseline, or requests failed
  2  cannot be run: wrong options, no such file, no such server, no such model
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser()
    try:
        options = read_options(parser.parse_args(arguments))
        held_out = read_held_out(options.held_out)
        baseline = read_baseline(options.baseline) if options.baseline else None
        if baseline is not None:
            baseline.require(held_out, options.max_tokens)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    items = stratified(held_out.items, options.per_cell or len(held_out.items))
    try:
        with tqdm(total=len(items) * len(options.models), unit=" answers", disable=not options.progress) as bar:
            outcomes = (
                ask_engines(options, items, bar.update)
                if options.engine
                else asyncio.run(ask_server(options, items, bar.update))
            )
    except (UnreachableError, UnsupportedModelError) as error:
        parser.error(str(error))
    fallen = publish(options, held_out, outcomes, baseline)
    return 1 if fallen or any(outcome.reply.problem for outcome in outcomes) else 0


def publish(options: QualityOptions, held_out: HeldOut, outcomes: Sequence[Outcome], baseline: Baseline | None) -> bool:
    """Prints and writes what was asked for. Returns whether a tier fell below the baseline."""
    sizes = known_sizes(options)
    results = reports(outcomes, sizes)
    for result in results:
        print(table(result))
    if options.json is not None:
        document = as_json(results, outcomes, held_out, sizes, max_tokens=options.max_tokens)
        write(options.json, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    if options.plot is not None:
        draw(results, options.plot)
    if options.write_baseline is not None:
        write_baseline(options, held_out, outcomes)
    return baseline is not None and fell(baseline, held_out, outcomes)


def fell(baseline: Baseline, held_out: HeldOut, outcomes: Sequence[Outcome]) -> bool:
    """Prints how the run compares with the baseline; whether any part fell, or nothing could be compared."""
    models = dict.fromkeys(outcome.model for outcome in outcomes)
    marks = {model: baseline.marks(model, held_out) for model in models if model in baseline.tiers}
    compared = changes(outcomes, marks)
    print("\nagainst the baseline, on the same items")
    for model in models:
        if model not in marks:
            print(f"  {model}: not in the baseline, not compared")
    for change in compared:
        if change.fell or change.part == "overall":
            print(f"  {'FELL  ' if change.fell else 'ok    '}{change}")
    replies = {model: baseline.tiers[model].replies for model in marks}
    for model in marks:
        others = different([outcome for outcome in outcomes if outcome.model == model], replies)
        print(f"  {model}: {len(others)} of {len(replies[model])} stored replies are now in other words")
    return not marks or any(change.fell for change in compared)


def write_baseline(options: QualityOptions, held_out: HeldOut, outcomes: Sequence[Outcome]) -> None:
    """Writes the baseline, or prints why there is none: what was measured is worth showing all the same."""
    path = options.write_baseline
    if path is None:
        return
    runs: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        runs.setdefault(outcome.model, []).append(outcome)
    try:
        earlier = read_baseline(path) if path.exists() else None
        write(path, dump(make_baseline(runs, held_out, options.max_tokens, earlier)))
        print(f"\nbaseline written to {path}")
    except ValueError as error:
        print(f"\nno baseline written: {error}")


def known_sizes(options: QualityOptions) -> dict[str, int]:
    """Parameters of the tiers that have a directory here; a server's tiers need not."""
    names = dict.fromkeys([*TIERS, *options.models])
    return {
        name: parameters(options.models_dir / name)
        for name in names
        if name != AUTO and any((options.models_dir / name).glob("*.safetensors"))
    }


def write(path: Path, text: str) -> None:
    """Writes a file, and the folder it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m load_tests.quality",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default: %(default)s)")
    where.add_argument("--engine", action="store_true", help="no server: load the models in this process")
    add("--key", default="sk-manta-dev", help="API key (default: the one of dev.yaml)")
    add("--models", help="comma-separated (default: fast,balanced,frontier, and auto through a server)")
    add("--models-dir", type=Path, default=MODELS, help="a model directory per tier (default: %(default)s)")
    add("--set", type=Path, default=HELD_OUT, help="held-out items as JSON lines (default: %(default)s)")
    add("--limit", type=int, metavar="N", help="only the first N items of each family and level")
    add("--max-tokens", type=int, default=96, help="of each answer (default: %(default)s)")
    add("--concurrency", type=int, default=32, help="requests under way (default: %(default)s)")
    add("--timeout", type=float, default=120.0, help="seconds for one request (default: %(default)s)")
    add("--dtype", choices=get_args(DTypeName), default="float32", help="of --engine (default: %(default)s)")
    add("--device", choices=get_args(DeviceName), default="cpu", help="of --engine (default: %(default)s)")
    add("--threads", type=int, default=1, help="of --engine, inside one operation (default: %(default)s)")
    add("--json", type=Path, metavar="OUT", help="write every figure and every reply")
    add("--plot", type=Path, metavar="OUT.png", help="draw families and levels by tier")
    add("--baseline", type=Path, nargs="?", const=BASELINE, metavar="FILE", help="compare (default file: %(const)s)")
    add("--write-baseline", type=Path, nargs="?", const=BASELINE, metavar="FILE", help="make this run the baseline")
    add("--no-progress", dest="progress", action="store_false", help="no progress bar")
    return parser


def read_options(parsed: argparse.Namespace) -> QualityOptions:
    """Raises ValueError for what cannot be run."""
    usual = TIERS if parsed.engine else (*TIERS, AUTO)
    return QualityOptions(
        engine=parsed.engine,
        url=parsed.url,
        key=parsed.key,
        models=usual if parsed.models is None else tuple(parsed.models.split(",")),
        models_dir=parsed.models_dir,
        held_out=parsed.set,
        per_cell=parsed.limit,
        max_tokens=parsed.max_tokens,
        concurrency=parsed.concurrency,
        timeout_s=parsed.timeout,
        dtype=parsed.dtype,
        device=parsed.device,
        threads=parsed.threads,
        json=parsed.json,
        plot=parsed.plot,
        baseline=parsed.baseline,
        write_baseline=parsed.write_baseline,
        progress=parsed.progress,
    )


if __name__ == "__main__":
    sys.exit(main())
