"""The requests that the forecaster is fitted to, and those that it is judged by, all drawn from one seed.

None is of the held-out set: all tasks are of the curriculum's training side, and the open requests are no evaluation's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deployments.models.training.curriculum import draw_tasks
from deployments.models.training.curriculum.task import FAMILIES, Task
from deployments.models.training.routing.answers import key
from deployments.models.training.routing.everyday_questions import everyday_questions
from deployments.models.training.routing.everyday_requests import read_everyday_requests, read_small_talk
from deployments.models.training.routing.open_prompts import read_instructions, read_open_prompts
from deployments.models.training.routing.other_values import FITTED_VALUES, JUDGED_VALUES, with_other_values
from deployments.models.training.routing.reworded import FITTED, JUDGED, reworded

QUESTIONS = {"cache/qqp_pairs.jsonl.gz": 5_000, "cache/disfl_qa_train.jsonl.gz": 4_000}  # how many of each
REQUESTS_BY_INTENT = "benign/clinc_train.jsonl.gz"
INSTRUCTIONS = {"corpus/gpteacher.jsonl.gz": 2_500, "corpus/self_instruct_human.jsonl.gz": 240}
TEMPLATE_COUNT, REQUEST_COUNT = 4_000, 4_000
JUDGED_SHARE = 4  # one task in 4 is judged by
CHANGED_SHARE = 3  # and one in 3 of those in other words or about other names


@dataclass(frozen=True, slots=True)
class Requests:
    """Tasks, ``opened`` requests and ``small_talk``, all fitted to, and by kind the tasks to judge by, of which none is
    fitted to."""

    fitted: list[Task]
    opened: list[Task]
    small_talk: list[Task]
    judged: dict[str, list[Task]]


def draw_requests(tasks: int, reworded_tasks: int, renamed_tasks: int, data: Path, seed: int) -> Requests:
    """Draws ``tasks`` tasks as they are, ``reworded_tasks`` to put into other words and ``renamed_tasks`` to ask about
    other names, where they can be; and questions and instructions from the files in ``data``. The tasks to judge by
    have no drills, which no user asks for.

    Raises FileNotFoundError, and ValueError if a file has not as many as are wanted of it.
    """
    plain = list(draw_tasks(tasks, f"routing {seed}"))
    cut = tasks - tasks // JUDGED_SHARE
    words, judged_words = _divided(reworded_tasks, f"routing reworded {seed}", f"routing judged {seed}")
    names, judged_names = _divided(renamed_tasks, f"routing values {seed}", f"routing judged values {seed}")
    fitted = _different([*plain[:cut], *reworded(words, FITTED, seed), *with_other_values(names, FITTED_VALUES, seed)])
    taken = {key(task) for task in fitted}
    judged = {
        "as they are": [task for task in plain[cut:] if task.family in FAMILIES],
        "in other words": reworded(judged_words, JUDGED, seed),
        "about other names": with_other_values(judged_names, JUDGED_VALUES, seed),
    }
    return Requests(
        fitted,
        _open_requests(data, seed + 1),
        read_small_talk(data / REQUESTS_BY_INTENT, seed + 1),
        {kind: [task for task in _different(part) if key(task) not in taken] for kind, part in judged.items()},
    )


def _open_requests(data: Path, seed: int) -> list[Task]:
    """Questions, instructions and everyday requests that people have written, and questions made from templates."""
    opened: list[Task] = []
    for name, count in QUESTIONS.items():
        opened += read_open_prompts(data / name, count, seed)
    for name, count in INSTRUCTIONS.items():
        opened += read_instructions([data / name], count, seed)
    opened += read_everyday_requests(data / REQUESTS_BY_INTENT, REQUEST_COUNT, seed)
    return opened + everyday_questions(TEMPLATE_COUNT, seed)


def _divided(count: int, fitted: str, judged: str) -> tuple[list[Task], list[Task]]:
    """Tasks drawn from the seed ``fitted``, and fewer from the seed ``judged``, ``count`` together."""
    last = count // CHANGED_SHARE
    return list(draw_tasks(count - last, fitted)), list(draw_tasks(last, judged))


def _different(tasks: list[Task]) -> list[Task]:
    return list({key(task): task for task in tasks}.values())
