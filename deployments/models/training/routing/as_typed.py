"""Requests as people type them: in small letters, without the last sign, or with their parts in another order.

Tasks and open requests alike, so that none of this speaks for either. No word is left out or put in: a phrasing of
training could become one that is held out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from deployments.models.training.curriculum.task import Task, Turn


def as_typed(requests: Sequence[Task], seed: int) -> list[Task]:
    """Returns ``requests`` with the last message of each typed in another way. The same for the same seed."""
    draw = random.Random(f"as typed {seed}")
    return [_typed(request, draw) for request in requests]


def _typed(request: Task, draw: random.Random) -> Task:
    *earlier, last = request.turns
    change = draw.choice((_small, _unsigned, _small_and_unsigned, _last_first, _first_last))
    return replace(request, turns=(*earlier, Turn(last.role, change(last.content))))


def _small(text: str) -> str:
    return text.lower()


def _unsigned(text: str) -> str:
    return text.rstrip("?.! ")


def _small_and_unsigned(text: str) -> str:
    return _unsigned(text.lower())


def _last_first(text: str) -> str:
    """With the last line first, or the last sentence of a text of one line."""
    *others, last = text.split(_between(text))
    return _between(text).join([last, *others])


def _first_last(text: str) -> str:
    """With the first line last, or the first sentence of a text of one line."""
    first, *others = text.split(_between(text))
    return _between(text).join([*others, first])


def _between(text: str) -> str:
    return "\n" if "\n" in text else ". "
