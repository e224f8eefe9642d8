"""``python -m deployments.models.training.routing``: fit the forecaster that ``auto`` routes by."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from deployments.models.training.curriculum import draw_tasks
from deployments.models.training.curriculum.task import Task
from deployments.models.training.routing.answers import Answer, ask, conversation, fingerprint
from deployments.models.training.routing.head_report import HeadReport, head_report
from deployments.models.training.routing.margin import difference, least_margin, with_margin
from deployments.models.training.routing.network import fit, vocabulary_of
from deployments.models.training.routing.openness import with_open_tier
from deployments.models.training.routing.recognition import Recognised, draw_recognised
from deployments.models.training.routing.requests import Requests, draw_requests
from deployments.models.training.routing.sweep import Item
from engine.config import DeviceName
from engine.engine import Engine
from engine.model.location import locate
from load_tests.quality.options import PACKAGED
from load_tests.quality.size import parameters
from router.tiers.quality_forecast import Forecaster, cheapest_within, features

MODELS = Path(__file__).resolve().parents[2]
ROOT = MODELS.parents[1]
DATA = ROOT.parent / "shared" / "data"
KNOWN_TASKS = 40_000  # drawn for their words alone; no tier answers them
SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)  # tolerances in the table

DESCRIPTION = """\
Fit the forecaster that `auto` routes by: for every tier the chance that it answers a request right.

Draws tasks of the training side of the curriculum, as they are, in other words and about other names, lets every tier
but --open answer them (greedily, in this process), and fits a small network to what was right. Who answers questions
and instructions that people have written is known without asking: --open, and no other tier; and small talk is for the
last of --tiers. Which requests are open, one regression tells; it is fitted to more tasks, which no tier is asked, and
to open requests in other languages. The tiers' answers are kept in --work, so that an interrupted run goes on where it
was, and one with more tasks asks only the new ones; new weights are asked anew.

To a quarter of the tasks, and to a third of the others, nothing is fitted. On these the margin is chosen: the least by
which the chances of cheaper tiers must be lowered so that `auto`, at --tolerance, has as many right answers as the best
tier alone, but for at most --loss of the tasks (the lower bound of one standard error). How well each tier is
foretold, and what tolerances come to, is printed. Where the held-out set stands,
`python -m load_tests.quality.curve` tells.

--open-only fits the regression alone, and keeps what --out expects of the tiers: no tier is asked, minutes.
"""


@dataclass(frozen=True, slots=True)
class Judged:
    """Requests that nothing was fitted to, with all answers, and what the forecaster expects of the tiers asked."""

    items: list[Item]
    expected: list[tuple[float, ...]]


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    try:
        models = [model_path(tier, options) for tier in options.tiers]
        kept = kept_of(options) if options.open_only else None
        requests = draw_requests(options.tasks, options.reworded, options.renamed, options.data, options.seed)
        shown = draw_recognised(requests, options.data, options.seed)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if kept is not None:
        write(options.out, recognising(kept, shown, requests, options))
        return 0
    answers = {
        tier: answers_of(tier, model, requests, options) for tier, model in zip(options.tiers, models, strict=True)
    }
    try:
        forecaster = fitted(requests, answers, options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    lowered = with_chosen_margin(forecaster, requests, models, answers, options)
    write(options.out, recognising(lowered, shown, requests, options))
    return 0


def fitted(requests: Requests, answers: dict[str, dict[Task, Answer]], options: argparse.Namespace) -> Forecaster:
    """Fits what is expected of --tiers to their ``answers``. Open requests are right with none of them, and small talk
    with the last. Raises ValueError for too few tasks."""
    known = vocabulary_of(features(conversation(task)) for task in draw_tasks(KNOWN_TASKS, "routing vocabulary"))
    every = [*requests.fitted, *requests.opened, *requests.small_talk]
    seen = [features(conversation(task)) for task in every]
    right: list[list[bool | None]] = [[answers[tier][task].right for tier in options.tiers] for task in requests.fitted]
    right += [[False] * len(options.tiers) for _ in requests.opened]
    right += [[None] * (len(options.tiers) - 1) + [True] for _ in requests.small_talk]
    return fit(seen, right, options.tiers, options.seed, known)


def with_chosen_margin(
    forecaster: Forecaster,
    requests: Requests,
    models: Sequence[Path],
    answers: dict[str, dict[Task, Answer]],
    options: argparse.Namespace,
) -> Forecaster:
    """``forecaster`` with the chances of cheaper tiers lowered by the least margin that costs no right answers, chosen
    on requests to which nothing was fitted. Prints how well each tier is foretold, and what tolerances come to."""
    judged = {kind: judge(tasks, answers, forecaster) for kind, tasks in requests.judged.items()}
    best = best_tier([item for part in judged.values() for item in part.items])
    margin = least_margin(
        [item for part in judged.values() for item in part.items],
        [chances for part in judged.values() for chances in part.expected],
        best,
        options.tolerance,
        options.loss,
    )
    for kind, part in judged.items():
        print(f"\n{len(part.items):,} tasks {kind}, to which nothing was fitted\n")
        print(heads_table([report(tier, place, part) for place, tier in enumerate(options.tiers)]))
    print(f"\nmargin {margin:.2f}; `auto` less {options.tiers[best]} alone, right answers of a thousand:\n")
    print(settings_table(judged, best, margin))
    told = about(options, requests, models, judged, best, margin)
    return replace(with_margin(forecaster, best, margin), about=told)


def kept_of(options: argparse.Namespace) -> Forecaster:
    """What the forecaster that stands at --out expects of --tiers."""
    return Forecaster.from_json(options.out.read_text(encoding="utf-8")).narrowed(options.tiers)


def recognising(
    forecaster: Forecaster, shown: Recognised, requests: Requests, options: argparse.Namespace
) -> Forecaster:
    """``forecaster`` with the tier for open requests, and what that was fitted to in ``about``. Prints how many of the
    tasks to judge by are taken for open."""
    seen = [features(conversation(task)) for task in [*shown.tasks, *shown.opened]]
    opened = [False] * len(shown.tasks) + [True] * len(shown.opened)
    whole = with_open_tier(forecaster, options.open, seen, opened)
    for kind, tasks in requests.judged.items():
        expected = [whole.expect(features(conversation(task))) for task in tasks]
        astray = sum(cheapest_within(chances, options.tolerance) == len(chances) - 1 for chances in expected)
        print(f"{astray} of {len(tasks):,} tasks {kind} go to {options.open}")
    fitted = {"tasks": len(shown.tasks), "open requests": len(shown.opened)}
    return replace(whole, about={**forecaster.about, "open requests recognised by": fitted})


def answers_of(tier: str, model: Path, requests: Requests, options: argparse.Namespace) -> dict[Task, Answer]:
    """What a model answers to all tasks; it is loaded even if all its answers are known, to be sure it can be."""
    tasks = [*requests.fitted, *(task for part in requests.judged.values() for task in part)]
    engine = Engine.from_pretrained(model, device=options.device, threads=options.threads)
    answers = ask(engine, tasks, options.work / f"{tier}-{fingerprint(model)}.jsonl", tier)
    engine.close()
    return dict(zip(tasks, answers, strict=True))


def judge(tasks: Sequence[Task], answers: dict[str, dict[Task, Answer]], forecaster: Forecaster) -> Judged:
    """The answers to ``tasks`` of the tiers of ``forecaster``, and what it expects."""
    return Judged(
        [item([answers[tier][task] for tier in forecaster.tiers]) for task in tasks],
        [forecaster.expect(features(conversation(task))) for task in tasks],
    )


def item(answers: Sequence[Answer]) -> Item:
    """One task as the sweep counts it."""
    return Item(tuple(answer.right for answer in answers), tuple(answer.tokens for answer in answers))


def best_tier(items: Sequence[Item]) -> int:
    """The place of the tier with the most right answers, the cheapest of equals."""
    right = [sum(marks) for marks in zip(*(item.right for item in items), strict=True)]
    return right.index(max(right))


def report(tier: str, place: int, judged: Judged) -> HeadReport:
    """How well the tier at ``place`` is foretold."""
    return head_report(tier, [each[place] for each in judged.expected], [each.right[place] for each in judged.items])


def about(
    options: argparse.Namespace,
    requests: Requests,
    models: Sequence[Path],
    judged: dict[str, Judged],
    best: int,
    margin: float,
) -> dict[str, Any]:
    """What the file says of itself."""
    return {
        "fitted by": "python -m deployments.models.training.routing",
        "seed": options.seed,
        "fitted to": {
            "tasks": len(requests.fitted),
            "open requests": len(requests.opened),
            "small talk": len(requests.small_talk),
        },
        "that only this tier answers": options.open,
        "chances of cheaper tiers lowered by": margin,
        "for tolerance": options.tolerance,
        "judged by tasks": {kind: judged_by(part, best, options.tolerance, margin) for kind, part in judged.items()},
        "tiers": {
            tier: {"parameters": parameters(model), "model": fingerprint(model)}
            for tier, model in zip(options.tiers, models, strict=True)
        },
    }


def judged_by(part: Judged, best: int, tolerance: float, margin: float) -> dict[str, float]:
    """What the choices come to beside the best tier alone, in right answers as a share of the tasks."""
    found = difference(part.items, part.expected, best, tolerance, margin)
    return {
        "tasks": len(part.items),
        "more right than the best tier alone": round(found.mean, 5),
        "standard error": round(found.error, 5),
        "to other tiers": round(found.elsewhere, 3),
    }


def write(path: Path, forecaster: Forecaster) -> None:
    """Writes the forecaster's file, read back to be sure."""
    text = forecaster.to_json()
    Forecaster.from_json(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"\nwritten to {path}, {len(text) / 1000:,.0f} kB")


def heads_table(reports: Sequence[HeadReport]) -> str:
    """How well each tier is foretold."""
    lines = [f"{'':12}{'right':>9}{'expected':>10}{'log loss':>10}{'(base)':>9}{'Brier':>8}{'AUC':>7}"]
    lines += [
        f"{r.tier:12}{r.right:>9.1%}{r.expected:>10.1%}{r.log_loss:>10.3f}{f'({r.base_loss:.3f})':>9}{r.brier:>8.3f}"
        f"{r.auc:>7.3f}"
        for r in reports
    ]
    return "\n".join(lines)


def settings_table(judged: dict[str, Judged], best: int, margin: float) -> str:
    """What tolerances come to beside tier ``best`` alone, with the standard errors, and the shares of other tiers."""
    lines = ["tolerance" + "".join(f"{name:>24}{'elsewhere':>11}" for name in judged)]
    for tolerance in SHOWN:
        line = f"{tolerance:>9.2f}"
        for part in judged.values():
            found = difference(part.items, part.expected, best, tolerance, margin)
            line += f"{f'{1000 * found.mean:+.1f} ± {1000 * found.error:.1f}':>24}{found.elsewhere:>11.0%}"
        lines.append(line)
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
    add("--tasks", type=int, default=22_000, help="to draw; a quarter is judged by (default: %(default)s)")
    add("--reworded", type=int, default=12_000, help="more in other words; a third is judged by (default: %(default)s)")
    add(
        "--renamed",
        type=int,
        default=24_000,
        help="more to ask about other names, where that can be done (one in four); a third is judged by "
        "(default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of the draws and of the fit (default: %(default)s)")
    add("--models", type=Path, default=MODELS, help="a model directory per tier (default: deployments/models)")
    add(
        "--tiers",
        nargs="+",
        default=["fast", "balanced", "frontier"],
        metavar="TIER",
        help="that answer tasks, cheapest first, as configured (default: fast balanced frontier)",
    )
    add(
        "--open", default="general", metavar="TIER", help="answers open requests, and is dearest (default: %(default)s)"
    )
    add("--data", type=Path, default=DATA, help="directory of questions and instructions (default: %(default)s)")
    add(
        "--tolerance",
        type=float,
        default=0.05,
        help="that the margin is chosen for, and that is configured (default: %(default)s)",
    )
    add("--open-only", action="store_true", help="fit only the regression of open requests, and keep the rest of --out")
    add("--loss", type=float, default=0.001, help="of right answers at most, as a share (default: %(default)s)")
    add(
        "--out",
        type=Path,
        default=MODELS / "auto.json",
        help="the file to write (default: deployments/models/auto.json)",
    )
    add("--work", type=Path, default=ROOT / ".manta" / "routing", help="keeps the answers (default: .manta/routing)")
    add("--device", choices=get_args(DeviceName), default="cpu", help="where the models run (default: %(default)s)")
    add("--threads", type=int, help="of the engine, inside one operation (default: torch's choice)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
