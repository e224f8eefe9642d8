"""Sums of the curriculum, put in brackets. It has none: no tier can work them out, but they are no open requests."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from deployments.models.training.curriculum.task import Task, Turn

SUM = re.compile(r"(?<![\d.])\d+ (?:[-+*x×]|plus|minus|times) \d+(?![\d.])")
LONGER = 0.6  # of the sums go on behind the bracket


def with_brackets(tasks: Sequence[Task], seed: int) -> list[Task]:
    """Returns those of ``tasks`` whose last message has a sum, with the first one in brackets. The same for the same
    seed."""
    draw = random.Random(f"brackets {seed}")

    def put(match: re.Match[str]) -> str:
        behind = f" {draw.choice('+-*')} {draw.randint(2, 99)}" if draw.random() < LONGER else ""
        return f"({match[0]}){behind}"

    changed = []
    for task in tasks:
        *earlier, last = task.turns
        text, count = SUM.subn(put, last.content, count=1)
        if count:
            changed.append(replace(task, turns=(*earlier, Turn(last.role, text))))
    return changed
