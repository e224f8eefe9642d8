"""Tasks with exact answers, by family and level, for training and, kept apart, for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deployments.models.training.curriculum import (
    arithmetic,
    classification,
    definitions,
    drills,
    extraction,
    formats,
    recall,
    reference,
    smalltalk,
    tables,
    transformation,
    wordproblems,
)
from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.task import FAMILIES, LEVELS, Task, Turn

ROOMS = (
    extraction,
    classification,
    transformation,
    arithmetic,
    wordproblems,
    tables,
    formats,
    definitions,
    smalltalk,
    reference,
)
MAKERS: dict[tuple[str, int], tuple[Callable[[Draw], Task], ...]] = {
    (room.FAMILY, level): makers for room in ROOMS for level, makers in room.LEVELS.items()
}


DRILLED = 0.14  # of the tasks for training


def draw_tasks(count: int, seed: int | str, *, held_out: bool = False) -> Iterator[Task]:
    """``count`` tasks, families and levels in equal parts, for training with some drills besides; the same ones for the
    same seed."""
    draw = Draw(seed, held_out=held_out)
    cells = [(family, level) for family in FAMILIES for level in LEVELS]
    for _ in range(count):
        if not held_out and draw.random() < DRILLED:
            yield draw.choice((drills.copying, drills.sums))(draw)
        else:
            yield draw.choice(MAKERS[draw.choice(cells)])(draw)


def draw_copying(count: int, seed: int | str) -> Iterator[Task]:
    """``count`` repetitions: what a new model begins with."""
    draw = Draw(seed)
    for _ in range(count):
        yield drills.copying(draw)


def draw_recall(count: int, seed: int | str) -> Iterator[tuple[Turn, ...]]:
    """``count`` conversations of several questions about one text."""
    draw = Draw(seed)
    for _ in range(count):
        yield recall.recall(draw)
