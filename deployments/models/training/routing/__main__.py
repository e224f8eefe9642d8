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
from deployments.models.training.routing.everyday_questions import everyday_questions
from deployments.models.training.routing.heads import Fit, HeadReport, fit, vocabulary_of
from deployments.models.training.routing.open_prompts import read_instructions, read_open_prompts
from deployments.models.training.routing.reworded import reworded
from deployments.models.training.routing.sweep import Item, Setting, best, outcome, sweep
from engine.config import DeviceName
from engine.engine import Engine
from engine.model.location import locate
from load_tests.quality.options import PACKAGED
from load_tests.quality.size import parameters
from router.tiers.quality_forecast import Forecaster, features

MODELS = Path(__file__).resolve().parents[2]
ROOT = MODELS.parents[1]
DATA = ROOT.parent / "shared" / "data"
OPEN_PROMPTS = Path("cache") / "qqp_pairs.jsonl.gz"  # Quora Question Pairs
INSTRUCTIONS = {Path("corpus") / "gpteacher.jsonl.gz": 2_500, Path("corpus") / "self_instruct_human.jsonl.gz": 240}
QUESTIONS, EVERYDAY = 2_500, 1_500
KNOWN_TASKS = 40_000  # drawn for their words alone; no tier answers them
SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)  # tolerances in the table

DESCRIPTION = """\
Fit the forecaster that `auto` routes by: for every tier the chance that it answers a request right.

Draws tasks of the training side of the curriculum, half of them in other words than the curriculum's, lets every tier
but --open-tier answer them (greedily, in this process), and fits one logistic head per tier to what was right. Open
requests (questions and instructions that people have written, and everyday questions from templates) no tier is asked:
--open-tier is counted as right of them and of no task, the others as wrong. Asking takes hours, and what decides is
known: the tiers of the curriculum answer 0, 0 and 1 of 200 open questions, and SmolLM2 7 of 900 tasks.

The tiers' answers are kept in --work, so that a run that was interrupted goes on where it was, and one with more tasks
asks only the new ones; new weights are asked anew.

Prints, on tasks that were not fitted to, how well each head foretells its tier and what each tolerance comes to.
Where the held-out set stands, `python -m load_tests.quality.curve` tells.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    try:
        models = [model_path(tier, options) for tier in options.tiers]
        opened = open_requests(options)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    closed = closed_tasks(options)
    answers = [answers_of(tier, model, closed, options) for tier, model in zip(options.tiers, models, strict=True)]
    sizes = [parameters(model) for model in models]

    seen = [features(conversation(task)) for task in [*closed, *opened]]
    rows = list(zip(*answers, strict=True))
    told = [tier == options.open_tier for tier in options.tiers]
    right = [[answer.right for answer in row] for row in rows] + [told] * len(opened)
    try:
        known = vocabulary_of(features(conversation(task)) for task in draw_tasks(KNOWN_TASKS, "routing vocabulary"))
        fitted = fit(seen, right, options.tiers, options.seed, known)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    compared = [place for place in fitted.reported if place < len(closed)]
    expected = [fitted.forecaster.expect(seen[place]) for place in compared]
    items = [item(rows[place]) for place in compared]
    print(f"\nheads on {len(fitted.reported):,} of {len(seen):,} requests, which nothing was fitted to; choices on the")
    print(f"{len(items):,} tasks of them\n")
    print(heads_table(fitted.reports))
    print()
    print(settings_table(sweep(items, expected, sizes), outcome_of_best(items, sizes), options.keep))
    write(options.out, fitted, about(options, closed, opened, models, sizes, fitted.reports))
    return 0


def closed_tasks(options: argparse.Namespace) -> list[Task]:
    """Tasks of the curriculum, the second half in other words. None twice: one could be fitted to and reported on."""
    drawn = list(draw_tasks(options.tasks, f"routing {options.seed}"))
    half = len(drawn) // 2
    mixed = [*drawn[:half], *reworded(drawn[half:], options.seed)]
    return list({key(task): task for task in mixed}.values())


def open_requests(options: argparse.Namespace) -> list[Task]:
    """Questions and instructions that people have written, and everyday questions. Raises OSError and ValueError as the
    functions that read them do."""
    questions = read_open_prompts(options.data / OPEN_PROMPTS, QUESTIONS, options.seed)
    instructions = [
        task
        for path, count in INSTRUCTIONS.items()
        for task in read_instructions([options.data / path], count, options.seed)
    ]
    return [*questions, *instructions, *everyday_questions(EVERYDAY, options.seed)]


def answers_of(tier: str, model: Path, closed: Sequence[Task], options: argparse.Namespace) -> list[Answer]:
    """What a model answers to all tasks; it is loaded even if all its answers are known, to be sure it can be. The tier
    of open requests is not asked."""
    if tier == options.open_tier:
        return [Answer(right=False, prompt_tokens=0, completion_tokens=0)] * len(closed)
    engine = Engine.from_pretrained(model, device=options.device, threads=options.threads)
    answers = ask(engine, closed, options.work / f"{tier}-{fingerprint(model)}.jsonl", tier)
    engine.close()
    return answers


def item(answers: Sequence[Answer]) -> Item:
    """One task as the sweep counts it."""
    return Item(tuple(answer.right for answer in answers), tuple(answer.tokens for answer in answers))


def outcome_of_best(items: Sequence[Item], sizes: Sequence[int]) -> float:
    """The accuracy of the best tier alone."""
    return max(outcome(items, [tier] * len(items), sizes).accuracy for tier in range(len(sizes)))


def about(
    options: argparse.Namespace,
    closed: Sequence[Task],
    opened: Sequence[Task],
    models: Sequence[Path],
    sizes: Sequence[int],
    reports: Sequence[HeadReport],
) -> dict[str, Any]:
    """What the file says of itself."""
    return {
        "fitted by": "python -m deployments.models.training.routing",
        "tasks": len(closed),
        "open requests": len(opened),
        "that only this tier answers": options.open_tier,
        "seed": options.seed,
        "tiers": {
            report.tier: {
                "parameters": size,
                "model": fingerprint(model),
                "right": round(report.right, 3),
                "log loss": round(report.log_loss, 3),
                "brier": round(report.brier, 3),
                "auc": round(report.auc, 3),
            }
            for model, size, report in zip(models, sizes, reports, strict=True)
        },
    }


def write(path: Path, fitted: Fit, told: dict[str, Any]) -> None:
    """Writes the forecaster's file, read back to be sure."""
    heads = fitted.forecaster
    text = Forecaster(heads.tiers, heads.bias, heads.signs, heads.words, told, heads.known).to_json()
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


def settings_table(settings: Sequence[Setting], alone: float, keep: float) -> str:
    """What tolerances come to, and the one of least compute that keeps ``keep`` of ``alone``, the accuracy of the best
    tier."""
    lines = [f"{'tolerance':>9}{'accuracy':>10}{'of the best':>12}{'compute':>9}  share of each tier"]
    chosen = best(settings, keep * alone)
    shown = [s for s in settings if any(abs(s.tolerance - t) < 1e-9 for t in SHOWN)]
    for setting in [*shown, *([chosen] if chosen else [])]:
        if setting is chosen:
            lines.append(f"least compute with {keep:.0%} of the best tier's accuracy:")
        point = setting.point
        shares = ", ".join(f"{share:.0%}" for share in point.shares)
        kept = point.accuracy / alone if alone else 1.0
        lines.append(f"{setting.tolerance:>9.3f}{point.accuracy:>10.1%}{kept:>12.1%}{point.compute:>9.1%}  {shares}")
    return "\n".join(lines)


def model_path(tier: str, options: argparse.Namespace) -> Path:
    """The directory of a tier's model, or its file in an installed package. Raises FileNotFoundError."""
    if tier in PACKAGED:
        return locate(PACKAGED[tier])
    path: Path = options.models / tier
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"no model in {path}")
    return path


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
        default=["fast", "balanced", "frontier", "general"],
        metavar="TIER",
        help="cheapest first, as configured (default: fast balanced frontier general)",
    )
    add(
        "--open-tier",
        default="general",
        metavar="TIER",
        help="answers open requests, and is asked no tasks (default: %(default)s)",
    )
    add("--data", type=Path, default=DATA, help="directory of questions and instructions (default: ../shared/data)")
    add(
        "--out",
        type=Path,
        default=MODELS / "auto.json",
        help="the file to write (default: deployments/models/auto.json)",
    )
    add("--work", type=Path, default=ROOT / ".manta" / "routing", help="keeps the answers (default: .manta/routing)")
    add("--keep", type=float, default=1.0, help="accuracy to keep, of the best tier's (default: %(default)s)")
    add("--device", choices=get_args(DeviceName), default="cpu", help="where the models run (default: %(default)s)")
    add("--threads", type=int, help="of the engine, inside one operation (default: torch's choice)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
