"""Requests from written wordings: open ones and tasks as people word them who know no curriculum.

The files in ``written`` have a wording a line: ``{name}`` is filled, of ``[this|that]`` one is chosen, `` || `` divides
turns, and ``## family`` says what the lines below it ask for. One half of the wordings is fitted to; by the other is
judged. Nobody answers these tasks: they say what a task looks like, not which tier is right.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.models.training.curriculum.task import Task, Turn

WRITTEN = Path(__file__).with_name("written")
PLACE = re.compile(r"\{(\w+)\}")
CHOICE = re.compile(r"\[([^\[\]|]*(?:\|[^\[\]|]*)+)\]")
NEXT_TURN = " || "


@dataclass(frozen=True, slots=True)
class Wording:
    """One line of a file, and the family that it is of."""

    family: str
    text: str

    @property
    def many(self) -> bool:
        """Whether there is much to choose in it."""
        return CHOICE.search(self.text.replace(NEXT_TURN, "\n")) is not None

    def filled(self, values: Mapping[str, str], draw: random.Random) -> Task:
        """Returns the request with ``values`` in its places and one of each choice. Raises KeyError for a place that
        has no value."""
        turns = []
        for place, text in enumerate(self.text.split(NEXT_TURN)):
            while CHOICE.search(text):  # choices may stand inside of choices
                text = CHOICE.sub(lambda found: draw.choice(found[1].split("|")), text)
            said = PLACE.sub(lambda found: values[found[1]], text)
            turns.append(Turn("assistant" if place % 2 else "user", said))
        return Task(self.family, 1, tuple(turns), "")


def read_wordings(name: str) -> list[Wording]:
    """Returns the wordings in the file ``name``."""
    return list(_wordings((WRITTEN / name).read_text(encoding="utf-8").splitlines()))


def _wordings(lines: Sequence[str]) -> Iterator[Wording]:
    family = ""
    for line in lines:
        if line.startswith("## "):
            family = line[3:]
        elif line and not line.startswith("#"):
            yield Wording(family, line.replace("\\n", "\n"))
