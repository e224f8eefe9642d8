"""Tasks with exact answers, by family and level, for training and, kept apart, for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

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


# Shares of the families for a tier that knows already what is soon learnt.
HARD: Mapping[str, float] = {
    "extraction": 1.5,
    "classification": 1.0,
    "transformation": 2.0,
    "arithmetic": 2.0,
    "word problems": 1.5,
    "tables": 2.0,
    "format": 0.7,
    "definitions": 0.3,
    "conversation": 0.7,
    "reference": 0.5,
}


def draw_tasks(
    count: int, seed: int | str, *, held_out: bool = False, shares: Mapping[str, float] | None = None
) -> Iterator[Task]:
    """``count`` tasks, for training with some drills besides; the same ones for the same seed. Families come in equal
    parts or by ``shares``, their levels in equal parts."""
    draw = Draw(seed, held_out=held_out)
    cells = [(family, level) for family in FAMILIES for level in LEVELS]
    weights = None if shares is None else [shares[family] for family, _ in cells]
    for _ in range(count):
        if not held_out and draw.random() < DRILLED:
            yield draw.choice((drills.copying, drills.sums))(draw)
        else:
            cell = draw.choice(cells) if weights is None else draw.choices(cells, weights)[0]
            yield draw.choice(MAKERS[cell])(draw)


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
