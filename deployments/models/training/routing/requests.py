"""The tasks that the forecaster is fitted to, and those that it is judged by, all drawn from one seed.

None is of the held-out set: all are of the curriculum's training side. By which requests it tells open ones from tasks,
``separation`` draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deployments.models.training.curriculum import draw_tasks
from deployments.models.training.curriculum.task import FAMILIES, Task
from deployments.models.training.routing.answers import key
from deployments.models.training.routing.everyday_requests import read_small_talk
from deployments.models.training.routing.other_values import FITTED_VALUES, JUDGED_VALUES, with_other_values
from deployments.models.training.routing.reworded import FITTED, JUDGED, reworded

REQUESTS_BY_INTENT = "benign/clinc_train.jsonl.gz"
JUDGED_SHARE = 4  # one task in 4 is judged by
CHANGED_SHARE = 3  # and one in 3 of those in other words or about other names


@dataclass(frozen=True, slots=True)
class Requests:
    """Tasks and ``small_talk``, all fitted to, and by kind the tasks to judge by, of which none is fitted to."""

    fitted: list[Task]
    small_talk: list[Task]
    judged: dict[str, list[Task]]


def draw_requests(tasks: int, reworded_tasks: int, renamed_tasks: int, data: Path, seed: int) -> Requests:
    """Draws ``tasks`` tasks as they are, ``reworded_tasks`` to put into other words and ``renamed_tasks`` to ask about
    other names, where they can be; and small talk from a file in ``data``. The tasks to judge by have no drills, which
    no user asks for.

    Raises FileNotFoundError.
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
        read_small_talk(data / REQUESTS_BY_INTENT, seed + 1),
        {kind: [task for task in _different(part) if key(task) not in taken] for kind, part in judged.items()},
    )


def _divided(count: int, fitted: str, judged: str) -> tuple[list[Task], list[Task]]:
    """Tasks drawn from the seed ``fitted``, and fewer from the seed ``judged``, ``count`` together."""
    last = count // CHANGED_SHARE
    return list(draw_tasks(count - last, fitted)), list(draw_tasks(last, judged))


def _different(tasks: list[Task]) -> list[Task]:
    return list({key(task): task for task in tasks}.values())
