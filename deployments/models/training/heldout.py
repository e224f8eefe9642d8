"""The held-out set: tasks with values and phrasings that training never sees, kept in git beside this module."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from deployments.models.training.curriculum import MAKERS
from deployments.models.training.curriculum.draw import Draw
from deployments.models.training.curriculum.task import Turn
from engine.api import Message
from load_tests.quality.item import Item

PATH = Path(__file__).with_name("heldout.jsonl")
PER_CELL = 30  # of each family and level
ATTEMPTS = 4000  # a cell with little variety gives fewer


def make() -> list[Item]:
    """The set, from scratch: always the same, no question twice. An id is stable as long as the curriculum is."""
    items = []
    for (family, level), makers in MAKERS.items():
        draw = Draw(f"held out: {family} {level}", held_out=True)
        seen: set[tuple[Turn, ...]] = set()
        for attempt in range(ATTEMPTS):
            task = makers[attempt % len(makers)](draw)
            if task.turns in seen:
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
    write(make())
