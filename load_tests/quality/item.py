"""The held-out set: questions with one right answer each, that no model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.models.training.curriculum.task import is_right
from engine.api import Message
from load_tests.quality.question import QuestionSet, read_questions

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Item:
    """One question: a conversation that ends with the user's turn, and the one right answer."""

    id: str
    family: str
    level: int  # 1 is easiest
    messages: tuple[Message, ...]
    answer: str

    def accepts(self, reply: str) -> bool:
        """Exact match."""
        return is_right(reply, self.answer)

    def notes(self, reply: str) -> dict[str, Any]:
        """The right answer."""
        return {"answer": self.answer}


HeldOut = QuestionSet[Item]


def read_held_out(path: Path) -> HeldOut:
    """Reads one JSON object per line. Raises OSError, and ValueError, with file and line, for what is no item."""
    return read_questions(path, path.read_bytes(), _item)


def _item(row: dict[str, Any]) -> Item:
    messages = tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])
    if not messages or messages[-1].role != "user":
        raise ValueError("the last message must be the user's")
    if any(message.role not in ROLES for message in messages):
        raise ValueError(f"roles are {', '.join(ROLES)}")
    return Item(str(row["id"]), str(row["family"]), int(row["level"]), messages, str(row["answer"]))
