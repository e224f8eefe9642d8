"""The held-out set: tasks with values and phrasings that training never sees, kept in git beside this module.

    python -m deployments.models.training.heldout [DATA]

writes it anew. DATA is the folder of the English that training reads as well, since sums are worked out there too.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from deployments.models.training.curriculum import MAKERS
from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.task import Task, Turn
from deployments.models.training.english import Conversation, read_english
from engine.api import Message
from load_tests.quality.item import Item

PATH = Path(__file__).with_name("heldout.jsonl")
SUMS = ("arithmetic", "word problems")  # families
PER_CELL = 30  # of each family and level
ATTEMPTS = 4000  # a cell with little variety gives fewer
SUM = re.compile(r"(?<![\d.,])(\d+) ?([+-]) ?(\d+)(?: ?= ?\d+)?(?![\d.,]*\d)")
Sum = tuple[str, int, int]
"""Sign, and the two numbers, the smaller one first."""


def sums_in(text: str) -> set[Sum]:
    """Sums and differences of two numbers that are written out in ``text``, overlapping ones too."""
    found: set[Sum] = set()
    at = 0
    while match := SUM.search(text, at):
        a, b = sorted((int(match[1]), int(match[3])))
        found.add((match[2], a, b))
        at = match.start(3)
    return found


def asked(task: Task) -> set[Sum]:
    """The sums that have to be worked out for a task of arithmetic."""
    if task.working:
        return sums_in(task.working)
    numbers = sorted(int(number) for number in re.findall(r"\d+", task.turns[-1].content))
    if len(numbers) != 2:
        return set()
    a, b = numbers
    return {(sign, a, b) for sign, value in (("+", a + b), ("-", b - a)) if str(value) == task.answer}


def make(english: Iterable[Conversation]) -> list[Item]:
    """The set, from scratch: always the same for the same ``english`` of training, no question twice, and no sum that
    is worked out there. An id is stable as long as the curriculum is."""
    worked = {each for turns in english for turn in turns for each in sums_in(turn.content)}
    items = []
    for (family, level), makers in MAKERS.items():
        draw = Draw(f"held out: {family} {level}", held_out=True)
        seen: set[tuple[Turn, ...]] = set()
        for attempt in range(ATTEMPTS):
            task = makers[attempt % len(makers)](draw)
            if task.turns in seen or (family in SUMS and worked & asked(task)):
                continue
            seen.add(task.turns)
            name = f"{family.replace(' ', '-')}-{level}-{len(seen):03d}"
            messages = tuple(Message(turn.role, turn.content) for turn in task.turns)
            items.append(Item(name, family, level, messages, task.answer))
            if len(seen) == PER_CELL:
                break
    return items


def write(items: Iterable[Item], path: Path = PATH) -> None:
    """One JSON object per line, messages as in the OpenAI API."""
    with path.open("w", encoding="utf-8") as lines:
        for item in items:
            row = {
                "id": item.id,
                "family": item.family,
                "level": item.level,
                "messages": [{"role": message.role, "content": message.content} for message in item.messages],
                "answer": item.answer,
            }
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    data = Path(sys.argv[1]) if sys.argv[1:] else PATH.parents[4] / "shared" / "data"
    write(make(read_english(data)))
