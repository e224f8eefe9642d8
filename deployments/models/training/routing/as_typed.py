"""Requests as people type them: in small letters, without the last sign, with a word left out, in another order.

Tasks and open requests alike, so that none of this speaks for either.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from deployments.models.training.curriculum.task import Task, Turn

BEGINNING = 8  # words of the first line, of which one may be left out: they say what is asked for


def as_typed(requests: Sequence[Task], seed: int) -> list[Task]:
    """Returns ``requests`` with the last message of each typed in another way. The same for the same seed."""
    draw = random.Random(f"as typed {seed}")
    return [_typed(request, draw) for request in requests]


def _typed(request: Task, draw: random.Random) -> Task:
    *earlier, last = request.turns
    change = draw.choice((_small, _unsigned, _shortened, _turned))
    return replace(request, turns=(*earlier, Turn(last.role, change(last.content, draw))))


def _small(text: str, draw: random.Random) -> str:
    return _shortened(text.lower(), draw)


def _unsigned(text: str, _: random.Random) -> str:
    return text.rstrip("?.! ")


def _shortened(text: str, draw: random.Random) -> str:
    """Without one of the first words."""
    line, *others = text.split("\n")
    said = line.split(" ")
    if len(said) > 2:
        said.pop(draw.randrange(min(len(said), BEGINNING)))
    return "\n".join([" ".join(said), *others])


def _turned(text: str, draw: random.Random) -> str:
    """With its last line, or sentence, first, or with the first one last."""
    between = "\n" if "\n" in text else ". "
    parts = text.split(between)
    return between.join([parts[-1], *parts[:-1]] if draw.random() < 0.5 else [*parts[1:], parts[0]])
