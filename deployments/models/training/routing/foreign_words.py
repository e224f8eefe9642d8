"""Tasks about words of open questions: what is asked stays the same, the names and things are others.

A detector that knows the names of the curriculum by heart takes every new name for the sign of an open request. Of
these tasks only the words that ask, and their order, say that they are tasks.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from deployments.models.training.curriculum import words
from deployments.models.training.curriculum.task import Task, Turn

LETTERS = re.compile(r"[A-Za-z]+")
ASKING = 700  # most frequent words of tasks, which stay
FREQUENT = range(150, 9000)  # places of the words that are put in, by how often open questions have them
SHARES = (0.3, 0.7, 1.0)  # of a task's other words that are exchanged
NAMED = (
    words.NAMES,
    words.SURNAMES,
    words.CITIES,
    words.JOBS,
    words.NOUNS,
    words.ITEMS,
    words.COLOURS,
    words.DRINKS,
    words.PETS,
    words.SPORTS,
)


def asking_words(tasks: Iterable[Task]) -> frozenset[str]:
    """Returns the words by which ``tasks`` ask, in small letters: the frequent ones that name nothing."""
    counts: Counter[str] = Counter()
    for task in tasks:
        counts.update({word.lower() for turn in task.turns for word in LETTERS.findall(turn.content)})
    named = {word.lower() for group in NAMED for word in group}
    return frozenset(word for word, _ in counts.most_common(ASKING)) - named


def read_foreign_words(path: Path, asking: frozenset[str]) -> list[str]:
    """Returns words of the questions in ``path``, JSON lines (gzip) with a ``text_a``, other than ``asking``. Raises
    FileNotFoundError."""
    counts: Counter[str] = Counter()
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            counts.update(word.lower() for word in LETTERS.findall(json.loads(line)["text_a"]) if len(word) > 2)
    ranked = [word for word, _ in counts.most_common(FREQUENT.stop)][FREQUENT.start :]
    return [word for word in ranked if word not in asking]


def with_foreign_words(tasks: Sequence[Task], foreign: Sequence[str], asking: frozenset[str], seed: int) -> list[Task]:
    """Returns ``tasks`` with some or all words exchanged that are not ``asking``, each for the same one in a task."""
    draw = random.Random(f"foreign words {seed}")
    return [_exchanged(task, foreign, asking, draw) for task in tasks]


def _exchanged(task: Task, foreign: Sequence[str], asking: frozenset[str], draw: random.Random) -> Task:
    share = draw.choice(SHARES)
    other: dict[str, str] = {}

    def put(found: re.Match[str]) -> str:
        word = found[0]
        if word.lower() in asking or len(word) == 1:
            return word
        if word not in other:
            new = draw.choice(foreign)
            new = new.upper() if word.isupper() else new.capitalize() if word[0].isupper() else new
            other[word] = new if draw.random() < share else word
        return other[word]

    return replace(task, turns=tuple(Turn(turn.role, LETTERS.sub(put, turn.content)) for turn in task.turns))
