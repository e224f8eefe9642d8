"""The held-out set: questions with one right answer each, that no model was trained on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.api import Message

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Item:
    """One question: a conversation that ends with the user's turn, and the one right answer."""

    id: str
    family: str
    level: int  # 1 is easiest
    messages: tuple[Message, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class HeldOut:
    """All items of a file, in its order, and what tells the file from another."""

    path: Path
    sha256: str
    items: tuple[Item, ...]


def read_held_out(path: Path) -> HeldOut:
    """Reads one JSON object per line. Raises OSError, and ValueError, with file and line, for what is no item."""
    content = path.read_bytes()
    items = []
    for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
        try:
            items.append(_item(json.loads(line)))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}:{number} is no item: {error!r}") from None
    repeated = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if repeated:
        raise ValueError(f"{path} has several items called {repeated[0]}")
    if not items:
        raise ValueError(f"{path} is empty")
    return HeldOut(path, hashlib.sha256(content).hexdigest(), tuple(items))


def stratified(items: Iterable[Item], per_cell: int) -> tuple[Item, ...]:
    """The first ``per_cell`` items of each family and level, in the order of ``items``.

    Not a random draw: a smaller subset is part of every larger one, and the same for everybody.
    """
    taken: Counter[tuple[str, int]] = Counter()
    subset = []
    for item in items:
        cell = (item.family, item.level)
        if taken[cell] < per_cell:
            taken[cell] += 1
            subset.append(item)
    return tuple(subset)


def _item(row: dict[str, Any]) -> Item:
    messages = tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])
    if not messages or messages[-1].role != "user":
        raise ValueError("the last message must be the user's")
    if any(message.role not in ROLES for message in messages):
        raise ValueError(f"roles are {', '.join(ROLES)}")
    return Item(str(row["id"]), str(row["family"]), int(row["level"]), messages, str(row["answer"]))
