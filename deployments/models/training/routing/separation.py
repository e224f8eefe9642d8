"""The requests that the detector of open requests is fitted to, and those that it is judged by, all from one seed.

No tier answers them: that a request is a task or open is known from where it is drawn. None has the words of a request
of a held-out set; those that have, by chance, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployments.models.training.curriculum import draw_tasks
from deployments.models.training.curriculum.task import Task
from deployments.models.training.routing.everyday_questions import everyday_questions
from deployments.models.training.routing.everyday_requests import read_everyday_requests, read_small_talk
from deployments.models.training.routing.foreign_words import asking_words, read_foreign_words, with_foreign_words
from deployments.models.training.routing.open_prompts import read_field, read_instructions, read_open_prompts
from deployments.models.training.routing.other_values import FITTED_VALUES, JUDGED_VALUES, with_other_values
from deployments.models.training.routing.reworded import FITTED, JUDGED, reworded
from deployments.models.training.routing.written_open import conversations, read_sentences, written_requests
from deployments.models.training.routing.written_tasks import FITTED_HALF, JUDGED_HALF, written_tasks
from load_tests.quality.item import read_held_out
from load_tests.quality.open_questions.question import read_open_questions
from load_tests.quality.options import HELD_OUT, OPEN_QUESTIONS

WORD = re.compile(r"\w+")
QUESTIONS = {"cache/qqp_pairs.jsonl.gz": 5_000, "cache/disfl_qa_train.jsonl.gz": 4_000}  # how many of each
INSTRUCTIONS = {"corpus/gpteacher.jsonl.gz": 5_000, "corpus/self_instruct_human.jsonl.gz": 240}
REQUESTS_BY_INTENT, REQUEST_COUNT = "benign/clinc_train.jsonl.gz", 5_000
TEMPLATE_COUNT, CONVERSATION_COUNT = 4_000, 2_500
JUDGED_SOURCES = {  # files of which nothing is fitted to, with the field that has the request
    "FAQ": ("retrieval/covid_faq.jsonl.gz", "question"),
    "of a text": ("retrieval/xquad_en.jsonl.gz", "question"),
    "bank": ("benign/banking77_train.jsonl.gz", "text"),
    "commands": ("benign/snips_train.jsonl.gz", "text"),
    "that look unsafe": ("benign/coconot_contrast.jsonl.gz", "text"),
}
JUDGED_COUNT, JUDGED_CONVERSATIONS = 600, 400
PLAIN, REWORDED, RENAMED, FOREIGN = 24_000, 18_000, 30_000, 18_000  # tasks drawn; of RENAMED one in four can be


@dataclass(frozen=True, slots=True)
class Separation:
    """``tasks`` and ``opened`` requests to fit to; the same by kind to judge by."""

    tasks: list[Task]
    opened: list[Task]
    judged_tasks: Mapping[str, list[Task]]
    judged_opened: Mapping[str, list[Task]]


def draw_separation(data: Path, seed: int) -> Separation:
    """Draws all requests. Raises FileNotFoundError, and ValueError if a file has not as many as are wanted of it."""
    held_out = _held_out()
    return Separation(
        _apart(_tasks(data, seed), held_out),
        _apart(_opened(data, seed), held_out),
        {kind: _apart(part, held_out) for kind, part in _judged_tasks(seed).items()},
        {kind: _apart(part, held_out) for kind, part in _judged_opened(data, seed).items()},
    )


def _held_out() -> frozenset[tuple[str, ...]]:
    """The words of all requests by which ``auto`` is judged."""
    asked = [item.messages for item in read_held_out(HELD_OUT).items]
    asked += [item.messages for item in read_open_questions(OPEN_QUESTIONS).items]
    return frozenset(_words(messages[-1].content) for messages in asked if len(messages) == 1)


def _apart(tasks: list[Task], held_out: frozenset[tuple[str, ...]]) -> list[Task]:
    return [task for task in tasks if len(task.turns) > 1 or _words(task.turns[0].content) not in held_out]


def _words(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text.lower()))


def _tasks(data: Path, seed: int) -> list[Task]:
    plain = list(draw_tasks(PLAIN, f"separation {seed}"))
    other_words = reworded(list(draw_tasks(REWORDED, f"separation reworded {seed}")), FITTED, seed)
    other_names = with_other_values(list(draw_tasks(RENAMED, f"separation values {seed}")), FITTED_VALUES, seed)
    written = written_tasks("tasks_fitted.txt", FITTED_HALF, seed)
    asking = asking_words(plain)
    foreign = read_foreign_words(data / next(iter(QUESTIONS)), asking)
    changeable = [*plain[: FOREIGN * 2 // 3], *other_words[: FOREIGN // 3], *written]
    changed = with_foreign_words(changeable, foreign, asking, seed)
    talk = read_small_talk(data / REQUESTS_BY_INTENT, seed)
    return _different([*plain, *other_words, *other_names, *written, *changed, *talk])


def _opened(data: Path, seed: int) -> list[Task]:
    opened: list[Task] = []
    for name, count in QUESTIONS.items():
        opened += read_open_prompts(data / name, count, seed)
    for name, count in INSTRUCTIONS.items():
        opened += read_instructions([data / name], count, seed)
    opened += read_everyday_requests(data / REQUESTS_BY_INTENT, REQUEST_COUNT, seed)
    opened += everyday_questions(TEMPLATE_COUNT, seed)
    sentences = read_sentences(data, 0)
    written = written_requests("open_fitted.txt", 0, sentences, seed)
    # Twice, since these few are worded like tasks: what tells them apart is what is to be learnt.
    opened += [*written, *written]
    return opened + conversations([*opened, *written], CONVERSATION_COUNT, 0, sentences, seed)


def _judged_tasks(seed: int) -> dict[str, list[Task]]:
    return {
        "in other words": reworded(list(draw_tasks(6_000, f"separation judged {seed}")), JUDGED, seed),
        "about other names": with_other_values(
            list(draw_tasks(16_000, f"separation judged values {seed}")), JUDGED_VALUES, seed
        ),
        "written": _different(written_tasks("tasks_judged.txt", JUDGED_HALF, seed)),
    }


def _judged_opened(data: Path, seed: int) -> dict[str, list[Task]]:
    sentences = read_sentences(data, 1)
    written = _different(written_requests("open_judged.txt", 1, sentences, seed))
    return {
        "written": written,
        "of several turns": conversations(written, JUDGED_CONVERSATIONS, 1, sentences, seed),
        **{kind: read_field(data / name, field, JUDGED_COUNT, seed) for kind, (name, field) in JUDGED_SOURCES.items()},
    }


def _different(tasks: list[Task]) -> list[Task]:
    return list({task.turns: task for task in tasks}.values())
