"""What all sets share: questions that judge the replies to themselves, and the file that they come from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from engine.api import Message


class Question(Protocol):
    """A conversation that ends with the user's turn, and a rule that says which replies are right."""

    @property
    def id(self) -> str:
        """Unique in its set."""

    @property
    def family(self) -> str:
        """What kind of question it is: a row of the tables."""

    @property
    def level(self) -> int:
        """How hard it is within its family: 1 is easiest, and the only one in a set without levels."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the model is sent."""

    def accepts(self, reply: str) -> bool:
        """Whether ``reply`` is right."""

    def notes(self, reply: str) -> dict[str, Any]:
        """What a run's JSON says of ``reply`` beside its mark: the right answer, or the checks that failed."""


Q = TypeVar("Q", bound=Question)
Q_co = TypeVar("Q_co", bound=Question, covariant=True)


@dataclass(frozen=True, slots=True)
class QuestionSet(Generic[Q_co]):
    """All questions of a file, in its order, and what tells the file from another."""

    path: Path
    sha256: str  # of the content, unpacked
    items: tuple[Q_co, ...]


def read_questions(path: Path, content: bytes, parse: Callable[[dict[str, Any]], Q]) -> QuestionSet[Q]:
    """The questions in ``content``, one JSON object per line, made by ``parse``.

    Raises ValueError, with file and line, for what is no question.
    """
    items = []
    for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
        try:
            items.append(parse(json.loads(line)))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}:{number} is no item: {error!r}") from None
    repeated = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if repeated:
        raise ValueError(f"{path} has several items called {repeated[0]}")
    if not items:
        raise ValueError(f"{path} is empty")
    return QuestionSet(path, hashlib.sha256(content).hexdigest(), tuple(items))


def stratified(items: Iterable[Q], per_cell: int) -> tuple[Q, ...]:
    """The first ``per_cell`` items of each family and level, in the order of ``items``.

    Not a random draw: a smaller subset is part of every larger one, and the same in every run.
    """
    taken: Counter[tuple[str, int]] = Counter()
    subset = []
    for item in items:
        cell = (item.family, item.level)
        if taken[cell] < per_cell:
            taken[cell] += 1
            subset.append(item)
    return tuple(subset)
