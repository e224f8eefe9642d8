"""``python -m deployments.models.training.routing.refit``: teach the forecaster what an open request is, without asking
the tiers again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deployments.models.training.curriculum import draw_tasks
from deployments.models.training.routing.__main__ import DATA, INSTRUCTIONS, MODELS, OPEN_PROMPTS
from deployments.models.training.routing.answers import conversation
from deployments.models.training.routing.everyday_questions import everyday_questions
from deployments.models.training.routing.heads import refit
from deployments.models.training.routing.open_prompts import read_instructions, read_open_prompts
from router.tiers.quality_forecast import Forecaster, features

TASKS = 16_000
QUESTIONS, INSTRUCTIONS_EACH, EVERYDAY = 2_500, (2_500, 240), 1_500
SEED = 1

DESCRIPTION = """\
Teach the forecaster in FILE what an open request is. To ask the tiers takes hours; what decides where an open request
goes is known without: the tiers of the curriculum answer none (0, 0 and 1 of 200), and --open answers it as well as
anything here does.

Fits all heads anew: to tasks of the curriculum with the chances that FILE gives them, and to questions and instructions
that people have written and everyday questions made from templates, with chance 1 for --open and 0 for the others.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    try:
        old = Forecaster.from_json(options.file.read_text(encoding="utf-8"))
        opened = read_open_prompts(options.data / OPEN_PROMPTS.relative_to(DATA), QUESTIONS, SEED)
        for path, count in zip(INSTRUCTIONS, INSTRUCTIONS_EACH, strict=True):
            opened += read_instructions([options.data / path.relative_to(DATA)], count, SEED)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    opened += everyday_questions(EVERYDAY, SEED)
    if options.open not in old.tiers:
        print(f"{options.file} knows no tier {options.open}", file=sys.stderr)
        return 2
    tasks = [features(conversation(task)) for task in draw_tasks(TASKS, "routing openness")]
    place = old.tiers.index(options.open)
    sure = [1.0 if number == place else 0.0 for number in range(len(old.tiers))]
    chances = [[0.0 if number == place else chance for number, chance in enumerate(old.expect(each))] for each in tasks]
    seen = [*tasks, *(features(conversation(task)) for task in opened)]
    new = refit(old, seen, [*chances, *[sure] * len(opened)])
    about = {
        **old.about,
        "then by": "python -m deployments.models.training.routing.refit",
        "refitted to": {"tasks": len(tasks), "open requests": len(opened), "that only this tier answers": options.open},
    }
    text = Forecaster(new.tiers, new.bias, new.signs, new.words, about, new.known).to_json()
    Forecaster.from_json(text)
    options.file.write_text(text, encoding="utf-8")
    print(f"written to {options.file}, {len(text) / 1000:,.0f} kB")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.models.training.routing.refit",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", nargs="?", type=Path, default=MODELS / "auto.json", help="default: %(default)s")
    add("--open", default="general", metavar="TIER", help="answers open requests (default: %(default)s)")
    add("--data", type=Path, default=DATA, help="directory of questions and instructions (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
