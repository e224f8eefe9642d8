"""``python -m load_tests.quality``: how much the tiers get right, and whether it is still as much as it was."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from engine.config import DeviceName, DTypeName
from engine.model.spec import UnsupportedModelError
from load_tests.quality.baseline import read_baseline
from load_tests.quality.offline import ask_engines
from load_tests.quality.options import (
    AUTO,
    BASELINE,
    HELD_OUT,
    MODELS,
    OPEN_QUESTIONS,
    PACKAGED,
    SETS,
    TASKS,
    USUAL_IFEVAL,
    QualityOptions,
)
from load_tests.quality.publish import publish
from load_tests.quality.question import stratified
from load_tests.quality.server import UnreachableError, ask_server
from load_tests.quality.set_run import SetRun
from load_tests.quality.sets import IFEVAL_MAX_TOKENS, MAX_TOKENS, OPEN_MAX_TOKENS, TASKS_MAX_TOKENS, read_sets
from load_tests.quality.size import parameters

TIERS = ("fast", "balanced", "frontier")

DESCRIPTION = f"""\
Put sets of questions to the tiers and count what they get right. Answers are greedy, so a run can be repeated.

tasks    900 held-out tasks of the curriculum, each with one right answer: a reply is right if it is that answer, or
         ends in a line "Answer: ..." that says it. Families (extraction, arithmetic, ...) and levels (1 is easiest).
ifeval   541 prompts with 834 instructions that can be checked (Zhou et al. 2023): all of a prompt's instructions, and
         each alone, strictly and loosely. The prompts are not in the repository: --ifeval names their file, as
         published or packed. Without {USUAL_IFEVAL} the set is left out.
open     200 everyday questions, each with checks of its own (words that must occur, length, English prose). For models
         that know English; the embedded tiers do not.

Through a server:   --url URL     as users do; "auto" is the router's choice, and the table says whom it chose
Without one:        --engine      the same models in this process, from --models-dir

Each set ends in a table with a row per tier. Intervals are Wilson's, of 95 %; "±" is one standard error, with the
instructions of a prompt as a cluster. "compute" is tokens times parameters of the tier that answered, over all
requests: what the right answers cost, and what "auto" saves against "frontier".

The baseline ({BASELINE}) remembers which items of each set each tier had right. --baseline compares on
the same items; a net loss of more than 2 points overall or 8 in a family is a fall. It holds for one file of questions
and one set of models: write it again, and look at the difference, whenever either changes.
"""

EPILOG = f"""\
examples:
  python -m load_tests.quality --engine                           the tasks, all three tiers, no server needed
  python -m load_tests.quality --engine --models general --sets tasks ifeval open
                                                                  every set; docs/operations.md says what that takes
  python -m load_tests.quality --engine --limit 5 --models fast   a quick look: 5 items of each family and level
  python -m load_tests.quality --url http://127.0.0.1:8000        against `make serve`, auto included
  python -m load_tests.quality --engine --baseline                still as good as {BASELINE}?
  python -m load_tests.quality --engine --write-baseline          the models or the held-out set have changed
  python -m load_tests.quality --json run.json --plot run.png     every reply, and a picture of the tasks

exit codes:
  0  done, and nothing fell
  1  a tier fell below the baseline, or requests failed
  2  cannot be run: wrong options, no such file, no such server, no such model
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser()
    try:
        options = read_options(parser.parse_args(arguments))
        sets = read_sets(options)
        lengths = {name: options.max_tokens or MAX_TOKENS[name] for name in sets}
        baseline = read_baseline(options.baseline) if options.baseline else None
        for name, stored in baseline.sets.items() if baseline is not None else ():
            if name in sets:
                stored.require(sets[name], lengths[name])
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for name in options.sets:
        if name not in sets:
            print(f"{name} is left out: there is no {USUAL_IFEVAL}; --ifeval names the file of its prompts")
    asked = {name: stratified(found.items, options.per_cell or len(found.items)) for name, found in sets.items()}
    total = sum(map(len, asked.values())) * len(options.models)
    runs = []
    try:
        with tqdm(total=total, unit=" answers", disable=not options.progress) as bar:
            for name, items in asked.items():
                outcomes = (
                    ask_engines(options, items, lengths[name], bar.update)
                    if options.engine
                    else asyncio.run(ask_server(options, items, lengths[name], bar.update))
                )
                runs.append(SetRun(name, sets[name], lengths[name], tuple(outcomes)))
    except (UnreachableError, UnsupportedModelError) as error:
        parser.error(str(error))
    fallen = publish(options, runs, known_sizes(options), baseline)
    return 1 if fallen or any(outcome.reply.problem for run in runs for outcome in run.outcomes) else 0


def known_sizes(options: QualityOptions) -> dict[str, int]:
    """Parameters of the tiers that have a directory here; a server's tiers need not."""
    names = dict.fromkeys([*TIERS, *options.models])
    return {
        name: parameters(options.path(name))
        for name in names
        if name != AUTO and (name in PACKAGED or any((options.models_dir / name).glob("*.safetensors")))
    }


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
    add(
        "--models",
        help="comma-separated, of fast,balanced,frontier,general,auto (default: not general; no auto with --engine)",
    )
    add("--models-dir", type=Path, default=MODELS, help="a model directory per tier (default: %(default)s)")
    add("--sets", nargs="+", choices=SETS, default=[TASKS], help="what is asked (default: tasks)")
    add("--set", type=Path, default=HELD_OUT, help="items of the set tasks as JSON lines (default: %(default)s)")
    add("--ifeval", type=Path, metavar="FILE", help=f"prompts of the set ifeval (default: {USUAL_IFEVAL})")
    add("--open", type=Path, default=OPEN_QUESTIONS, metavar="FILE", help="the set open (default: %(default)s)")
    add("--limit", type=int, metavar="N", help="only the first N items of each family and level")
    lengths = f"{TASKS_MAX_TOKENS} for tasks, {IFEVAL_MAX_TOKENS} for ifeval, {OPEN_MAX_TOKENS} for open"
    add("--max-tokens", type=int, help=f"of each answer (default: {lengths})")
    add("--concurrency", type=int, default=32, help="requests under way (default: %(default)s)")
    add("--timeout", type=float, default=600.0, help="seconds for one request (default: %(default)s)")
    add("--dtype", choices=get_args(DTypeName), default="float32", help="of --engine (default: %(default)s)")
    add("--device", choices=get_args(DeviceName), default="cpu", help="of --engine (default: %(default)s)")
    add("--threads", type=int, default=1, help="of --engine, inside one operation (default: %(default)s)")
    add("--json", type=Path, metavar="OUT", help="write every figure and every reply")
    add("--plot", type=Path, metavar="OUT.png", help="draw families and levels of the tasks by tier")
    add("--baseline", type=Path, nargs="?", const=BASELINE, metavar="FILE", help="compare (default file: %(const)s)")
    add("--write-baseline", type=Path, nargs="?", const=BASELINE, metavar="FILE", help="make this run the baseline")
    add("--no-progress", dest="progress", action="store_false", help="no progress bar")
    return parser


def read_options(parsed: argparse.Namespace) -> QualityOptions:
    """Raises ValueError for what cannot be run."""
    usual = TIERS if parsed.engine else (*TIERS, AUTO)
    ifeval = USUAL_IFEVAL if parsed.ifeval is None and USUAL_IFEVAL.is_file() else parsed.ifeval
    return QualityOptions(
        engine=parsed.engine,
        url=parsed.url,
        key=parsed.key,
        models=usual if parsed.models is None else tuple(parsed.models.split(",")),
        models_dir=parsed.models_dir,
        sets=tuple(parsed.sets),
        held_out=parsed.set,
        ifeval=ifeval,
        open_questions=parsed.open,
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
