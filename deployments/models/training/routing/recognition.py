"""What only the regression of open requests is fitted to, beside the requests that the tiers' answers are known of.

To tell a task from an open request needs no answer. So there can be more of both: the curriculum's tasks about any
words, with brackets, and as people type them; texts with a question about them, questions in eleven languages, short
follow-ups.
"""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path

from deployments.models.training.curriculum import draw_tasks
from deployments.models.training.curriculum.task import Task, Turn
from deployments.models.training.routing.any_words import Vocabulary, with_any_words
from deployments.models.training.routing.as_typed import as_typed
from deployments.models.training.routing.bracketed import with_brackets
from deployments.models.training.routing.follow_ups import follow_ups
from deployments.models.training.routing.open_prompts import MAX_INSTRUCTION_WORDS, OPEN
from deployments.models.training.routing.requests import Requests
from deployments.models.training.routing.reworded import FITTED, reworded

PEOPLE_WRITE = ("cache/qqp_pairs.jsonl.gz", "text_a")  # questions whose words tasks are put about
LANGUAGES = ("benign/xquad_questions_11_languages.jsonl.gz", "text", 2_500)
TEXTS = ("corpus/t0_train.jsonl.gz", "prompt", 2_000)
PLAIN, REWORDED, ANY_WORDS, BRACKETED = 12_000, 6_000, 14_000, 3_000  # tasks to draw
TYPED_TASKS, TYPED_OPEN = 12_000, 8_000


@dataclass(frozen=True, slots=True)
class Recognised:
    """``tasks`` and ``opened`` requests to tell apart."""

    tasks: list[Task]
    opened: list[Task]


def draw_recognised(requests: Requests, data: Path, seed: int) -> Recognised:
    """Returns all that the regression is fitted to: what ``requests`` has to fit to, and what is drawn besides.

    Raises FileNotFoundError, and ValueError if a file in ``data`` has not as many as are wanted of it.
    """
    vocabulary = Vocabulary.of(_texts(data, *PEOPLE_WRITE))
    tasks = [
        *(*requests.fitted, *requests.small_talk),
        *draw_tasks(PLAIN, f"recognition {seed}"),
        *reworded(list(draw_tasks(REWORDED, f"recognition reworded {seed}")), FITTED, seed + 1),
        *with_any_words(list(draw_tasks(ANY_WORDS, f"recognition any words {seed}")), vocabulary, seed),
        *with_brackets(list(draw_tasks(BRACKETED, f"recognition brackets {seed}")), seed),
    ]
    opened = [*requests.opened, *follow_ups()]
    for name, field, count in (LANGUAGES, TEXTS):
        opened += _drawn(_texts(data, name, field), count, seed)
    draw = random.Random(f"recognition {seed}")
    return Recognised(
        [*tasks, *as_typed(draw.sample(tasks, min(TYPED_TASKS, len(tasks))), seed)],
        [*opened, *as_typed(draw.sample(opened, min(TYPED_OPEN, len(opened))), seed)],
    )


def _texts(data: Path, name: str, field: str) -> list[str]:
    """The different texts of a file of JSON lines (gzip), sorted."""
    with gzip.open(data / name, "rt", encoding="utf-8") as lines:
        return sorted({str(json.loads(line)[field]).strip() for line in lines})


def _drawn(texts: list[str], count: int, seed: int) -> list[Task]:
    """``count`` requests drawn from ``texts``, without long ones."""
    usable = [text for text in texts if text and len(text.split()) <= MAX_INSTRUCTION_WORDS]
    if len(usable) < count:
        raise ValueError(f"there are {len(usable)} usable texts, not {count}")
    drawn = random.Random(f"texts {seed}").sample(usable, count)
    return [Task(OPEN, 1, (Turn("user", text),), "") for text in drawn]
