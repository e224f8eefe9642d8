"""The open questions, read from ``open_questions.jsonl``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.api import Message
from load_tests.quality.open_questions.checks import Checks
from load_tests.quality.open_questions.match import without
from load_tests.quality.question import QuestionSet, read_questions


class OpenQuestion(BaseModel):
    """One question. ``example`` is a good answer, which passes the checks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    topic: str = Field(min_length=1)
    question: str = Field(min_length=1)
    example: str
    checks: Checks

    @property
    def family(self) -> str:
        """The topic."""
        return self.topic

    @property
    def level(self) -> int:
        """Open questions have no levels."""
        return 1

    @property
    def messages(self) -> tuple[Message, ...]:
        """The question alone."""
        return (Message("user", self.question),)

    def failed(self, reply: str) -> list[str]:
        """The checks that ``reply`` fails, once copies of the question are taken out of it."""
        return list(self.checks.failed(without(reply, self.question)))

    def accepts(self, reply: str) -> bool:
        """Whether all checks pass."""
        return not self.failed(reply)

    def notes(self, reply: str) -> dict[str, Any]:
        """The checks that failed."""
        return {"failed": self.failed(reply)}


def read_open_questions(path: Path) -> QuestionSet[OpenQuestion]:
    """One JSON object per line. Raises OSError, and ValueError for what is no question."""
    return read_questions(path, path.read_bytes(), OpenQuestion.model_validate)
