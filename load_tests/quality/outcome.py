"""What came back for one item, and whether it was right."""

from __future__ import annotations

from dataclasses import dataclass

from load_tests.quality.question import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model said, or the ``problem`` that kept it from saying anything."""

    text: str = ""
    tier: str | None = None  # which answered; None if that was not told
    prompt_tokens: int = 0
    completion_tokens: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The reply of ``model``, as it was asked for, to ``item``."""

    model: str
    item: Question
    reply: Reply

    @property
    def right(self) -> bool:
        """By the question's own rule; a request that failed is wrong."""
        return self.reply.problem is None and self.item.accepts(self.reply.text)

    @property
    def tokens(self) -> int:
        """Of prompt and completion together."""
        return self.reply.prompt_tokens + self.reply.completion_tokens
