"""``python -m deployments.models.training.routing``: fit the forecaster that ``auto`` routes by."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from deployments.models.training.curriculum import draw_tasks
from deployments.models.training.curriculum.task import Task
from deployments.models.training.routing.answers import Answer, ask, conversation, fingerprint, key
from deployments.models.training.routing.heads import Fit, HeadReport, fit
from deployments.models.training.routing.sweep import Item, Setting, best, outcome, sweep
from engine.config import DeviceName
from engine.engine import Engine
from load_tests.quality.size import parameters
from router.tiers.quality_forecast import Forecaster, features

MODELS = Path(__file__).resolve().parents[2]
ROOT = MODELS.parents[1]
SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)  # tolerances in the table

DESCRIPTION = """\
Fit the forecaster that `auto` routes by: for every tier the chance that it answers a request right.

Draws tasks of the training side of the curriculum, lets every tier answer them (greedily, in this process), fits one
logistic head per tier to what was right, and writes them to --out. The tiers' answers are kept in --work, so that a run
that was interrupted goes on where it was, and one with more tasks asks only the new ones; new weights are asked anew.

Prints, on tasks that were not fitted to, how well each head foretells its tier and what each tolerance comes to.
Where the held-out set stands, `python -m load_tests.quality.curve` tells.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    directories: list[Path] = [options.models / tier for tier in options.tiers]
    missing = [str(directory) for directory in directories if not (directory / "config.json").is_file()]
    if missing:
        print(f"no model in {', '.join(missing)}", file=sys.stderr)
        return 2
    drawn = draw_tasks(options.tasks, f"routing {options.seed}")
    tasks = list({key(task): task for task in drawn}.values())  # a task twice could be fitted to and reported on
    answers = [answers_of(directory, tasks, options) for directory in directories]
    sizes = [parameters(directory) for directory in directories]

    seen = [features(conversation(task)) for task in tasks]
    right = [[answer.right for answer in row] for row in zip(*answers, strict=True)]
    try:
        fitted = fit(seen, right, options.tiers, options.seed)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    expected = [fitted.forecaster.expect(seen[place]) for place in fitted.reported]
    items = [item([row[place] for row in answers]) for place in fitted.reported]
    print(f"\non {len(items):,} of {len(tasks):,} tasks, which nothing was fitted to\n")
    print(heads_table(fitted.reports))
    print()
    print(settings_table(sweep(items, expected, sizes), outcome_of_last(items, sizes), options.keep))
    write(options.out, fitted, about(options, tasks, directories, sizes, fitted.reports))
    return 0


def answers_of(directory: Path, tasks: Sequence[Task], options: argparse.Namespace) -> list[Answer]:
    """What the model in ``directory`` answers; it is loaded even if all its answers are known, to be sure it can be."""
    engine = Engine.from_pretrained(directory, device=options.device, threads=options.threads)
    return ask(engine, tasks, options.work / f"{directory.name}-{fingerprint(directory)}.jsonl", directory.name)


def item(answers: Sequence[Answer]) -> Item:
    """One task as the sweep counts it."""
    return Item(tuple(answer.right for answer in answers), tuple(answer.tokens for answer in answers))


def outcome_of_last(items: Sequence[Item], sizes: Sequence[int]) -> float:
    """The accuracy of the dearest tier alone."""
    return outcome(items, [len(sizes) - 1] * len(items), sizes).accuracy


def about(
    options: argparse.Namespace,
    tasks: Sequence[Task],
    directories: Sequence[Path],
    sizes: Sequence[int],
    reports: Sequence[HeadReport],
) -> dict[str, Any]:
    """What the file says of itself."""
    return {
        "fitted by": "python -m deployments.models.training.routing",
        "tasks": len(tasks),
        "seed": options.seed,
        "tiers": {
            directory.name: {
                "parameters": size,
                "model": fingerprint(directory),
                "right": round(report.right, 3),
                "log loss": round(report.log_loss, 3),
                "brier": round(report.brier, 3),
                "auc": round(report.auc, 3),
            }
            for directory, size, report in zip(directories, sizes, reports, strict=True)
        },
    }


def write(path: Path, fitted: Fit, told: dict[str, Any]) -> None:
    """Writes the forecaster's file, read back to be sure."""
    heads = fitted.forecaster
    text = Forecaster(heads.tiers, heads.bias, heads.signs, heads.words, told).to_json()
    Forecaster.from_json(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"\nwritten to {path}, {len(text) / 1000:,.0f} kB")


def heads_table(reports: Sequence[HeadReport]) -> str:
    """How well each head foretells its tier."""
    lines = [f"{'':12}{'right':>9}{'expected':>10}{'log loss':>10}{'(base)':>9}{'Brier':>8}{'AUC':>7}{'L2':>10}"]
    lines += [
        f"{r.tier:12}{r.right:>9.1%}{r.expected:>10.1%}{r.log_loss:>10.3f}{f'({r.base_loss:.3f})':>9}{r.brier:>8.3f}"
        f"{r.auc:>7.3f}{r.penalty:>10.0e}"
        for r in reports
    ]
    return "\n".join(lines)


def settings_table(settings: Sequence[Setting], last: float, keep: float) -> str:
    """What tolerances come to, and the one of least compute that keeps ``keep`` of the ``last`` tier's accuracy."""
    lines = [f"{'tolerance':>9}{'accuracy':>10}{'of dearest':>12}{'compute':>9}  share of each tier"]
    chosen = best(settings, keep * last)
    shown = [s for s in settings if any(abs(s.tolerance - t) < 1e-9 for t in SHOWN)]
    for setting in [*shown, *([chosen] if chosen else [])]:
        if setting is chosen:
            lines.append(f"least compute with {keep:.0%} of the dearest tier's accuracy:")
        point = setting.point
        shares = ", ".join(f"{share:.0%}" for share in point.shares)
        kept = point.accuracy / last if last else 1.0
        lines.append(f"{setting.tolerance:>9.3f}{point.accuracy:>10.1%}{kept:>12.1%}{point.compute:>9.1%}  {shares}")
    return "\n".join(lines)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.models.training.routing",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--tasks", type=int, default=6000, help="to draw (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the draw and of its division (default: %(default)s)")
    add("--models", type=Path, default=MODELS, help="a model directory per tier (default: deployments/models)")
    add(
        "--tiers",
        nargs="+",
        default=["fast", "balanced", "frontier"],
        metavar="TIER",
        help="weakest first, as configured (default: fast balanced frontier)",
    )
    add(
        "--out",
        type=Path,
        default=MODELS / "auto.json",
        help="the file to write (default: deployments/models/auto.json)",
    )
    add("--work", type=Path, default=ROOT / ".manta" / "routing", help="keeps the answers (default: .manta/routing)")
    add("--keep", type=float, default=0.95, help="accuracy to keep, of the dearest tier's (default: %(default)s)")
    add("--device", choices=get_args(DeviceName), default="cpu", help="where the models run (default: %(default)s)")
    add("--threads", type=int, help="of the engine, inside one operation (default: torch's choice)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
