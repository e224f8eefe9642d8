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
from deployments.models.training.routing.heads import Fit, HeadReport, fit, vocabulary_of
from deployments.models.training.routing.open_prompts import read_instructions, read_open_prompts
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
OPEN_PROMPTS = DATA / "cache" / "qqp_pairs.jsonl.gz"
INSTRUCTIONS = [DATA / "corpus" / name for name in ("gpteacher.jsonl.gz", "self_instruct_human.jsonl.gz")]
KNOWN_TASKS = 40_000  # drawn for their words alone; no tier answers them
SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)  # tolerances in the table

DESCRIPTION = """\
Fit the forecaster that `auto` routes by: for every tier the chance that it answers a request right.

Draws tasks of the training side of the curriculum, questions of --open and instructions of --instructions, lets every
tier answer them (greedily, in this process), fits one logistic head per tier to what was right, and writes them to
--out. The tiers' answers are kept in --work, so that a run that was interrupted goes on where it was, and one with more
tasks asks only the new ones; new weights are asked anew.

Prints, on tasks that were not fitted to, how well each head foretells its tier and what each tolerance comes to.
Where the held-out set stands, `python -m load_tests.quality.curve` tells.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    try:
        models = [model_path(tier, options) for tier in options.tiers]
        opened = []
        if options.instruction_prompts:
            opened += read_instructions(options.instructions, options.instruction_prompts, options.seed)
        if options.open_prompts:
            opened += read_open_prompts(options.open, options.open_prompts, options.seed)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    drawn = draw_tasks(options.tasks, f"routing {options.seed}")
    closed = list({key(task): task for task in drawn}.values())  # a task twice could be fitted to and reported on
    tasks = closed + opened
    answers = [
        answers_of(tier, model, closed, opened, options) for tier, model in zip(options.tiers, models, strict=True)
    ]
    sizes = [parameters(model) for model in models]

    seen = [features(conversation(task)) for task in tasks]
    rows = list(zip(*answers, strict=True))
    right = [[None if answer is None else answer.right for answer in row] for row in rows]
    try:
        known = vocabulary_of(features(conversation(task)) for task in draw_tasks(KNOWN_TASKS, "routing vocabulary"))
        fitted = fit(seen, right, options.tiers, options.seed, known)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    compared = [place for place in fitted.reported if all(answer is not None for answer in rows[place])]
    expected = [fitted.forecaster.expect(seen[place]) for place in compared]
    items = [item([answer for answer in rows[place] if answer is not None]) for place in compared]
    print(f"\nheads on {len(fitted.reported):,} of {len(tasks):,} tasks, which nothing was fitted to; choices on the")
    print(f"{len(items):,} of them that all tiers were asked\n")
    print(heads_table(fitted.reports))
    print()
    print(settings_table(sweep(items, expected, sizes), outcome_of_last(items, sizes), options.keep))
    write(options.out, fitted, about(options, closed, opened, models, sizes, fitted.reports))
    return 0


def asked(tier: str, tasks: Sequence[Task], options: argparse.Namespace) -> Sequence[Task]:
    """Returns the first of ``tasks`` for a tier that ``--sample`` names, else all of them."""
    samples = dict(options.sample)
    return tasks[: samples[tier]] if tier in samples else tasks


def answers_of(
    tier: str, model: Path, closed: Sequence[Task], opened: Sequence[Task], options: argparse.Namespace
) -> list[Answer | None]:
    """What a model answers to all tasks, None for those that it is not asked; it is loaded even if all its answers are
    known, to be sure it can be."""
    engine = Engine.from_pretrained(model, device=options.device, threads=options.threads)
    parts = [asked(tier, closed, options), asked(tier, opened, options)]
    answers = ask(engine, [*parts[0], *parts[1]], options.work / f"{tier}-{fingerprint(model)}.jsonl", tier)
    engine.close()
    split = len(parts[0])
    unasked = [[None] * (len(whole) - len(part)) for whole, part in zip((closed, opened), parts, strict=True)]
    return [*answers[:split], *unasked[0], *answers[split:], *unasked[1]]


def item(answers: Sequence[Answer]) -> Item:
    """One task as the sweep counts it."""
    return Item(tuple(answer.right for answer in answers), tuple(answer.tokens for answer in answers))


def outcome_of_last(items: Sequence[Item], sizes: Sequence[int]) -> float:
    """The accuracy of the dearest tier alone."""
    return outcome(items, [len(sizes) - 1] * len(items), sizes).accuracy


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
        "open questions and instructions": len(opened),
        "seed": options.seed,
        "tiers": {
            report.tier: {
                "parameters": size,
                "tasks": len(asked(report.tier, closed, options)),
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


def sample(text: str) -> tuple[str, int]:
    """TIER=TASKS. Raises ValueError."""
    tier, _, count = text.partition("=")
    return tier, int(count)


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
        "--sample",
        nargs="+",
        type=sample,
        default=[("general", 1200)],
        metavar="TIER=TASKS",
        help="tasks, and as many open prompts, that a tier answers, fewer than the others (default: general=1200: "
        "it is slow)",
    )
    add("--open", type=Path, default=OPEN_PROMPTS, help="open questions (default: Quora Question Pairs in ../shared)")
    add("--open-prompts", type=int, default=5000, help="how many of them; 0: none (default: %(default)s)")
    add(
        "--instructions",
        type=Path,
        nargs="+",
        default=INSTRUCTIONS,
        help="instructions (default: GPTeacher's and Self-Instruct's in ../shared)",
    )
    add("--instruction-prompts", type=int, default=800, help="how many of them, evenly; 0: none (default: %(default)s)")
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
