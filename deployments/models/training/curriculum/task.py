"""A task with an exact answer, and the rule by which a reply counts as right."""

from __future__ import annotations

from dataclasses import dataclass

FAMILIES = (
    "extraction",
    "classification",
    "transformation",
    "arithmetic",
    "word problems",
    "tables",
    "format",
    "definitions",
    "conversation",
    "reference",
)
LEVELS = (1, 2, 3)
FINAL = "Answer:"  # what comes after it counts, the working before it does not (the convention of GSM8K's "####")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: ``role`` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked, in ``turns`` that end with the user's, and the one right ``answer``.

    ``working`` is what a good reply says before the answer; empty if the reply is the answer alone.
    """

    family: str
    level: int
    turns: tuple[Turn, ...]
    answer: str
    working: str = ""

    @property
    def reply(self) -> str:
        """The reply to learn: the answer alone, or the working and ``Answer: …`` on a line of its own."""
        return f"{self.working}\n{FINAL} {self.answer}" if self.working else self.answer


def is_right(reply: str, answer: str) -> bool:
    """Exact match: the whole reply, or the line after its last ``Answer:`` if it has one; outer white space is free."""
    _, mark, last = reply.rpartition(FINAL)
    said = last.strip().split("\n", 1)[0] if mark else reply
    return said.strip() == answer.strip()


def ask(question: str) -> tuple[Turn, ...]:
    """A conversation of one question."""
    return (Turn("user", question),)
