"""Tasks of the curriculum about any words at all, to tell them from open requests by what they ask for alone.

The curriculum's names and things come from short lists, and an open request is about anything. So a word that is not in
these lists would speak for an open request. Whether a tier answers such a task is not asked: a name exchanged for a
verb has no right answer.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from deployments.models.training.curriculum import words
from deployments.models.training.curriculum.task import Task, Turn

WORD = re.compile(r"[A-Za-z]+")
MIN_LETTERS = 4  # shorter words mostly have a part in the grammar
EXCHANGED = 0.7  # of the values
TAUGHT = frozenset(
    word
    for values in (
        *(words.NAMES, words.SURNAMES, words.CITIES, words.JOBS, words.NOUNS),
        *(words.ITEMS, words.DRINKS, words.PETS, words.SPORTS),
    )
    for word in values
)
_TAUGHT_SMALL = frozenset(word.lower() for word in TAUGHT)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words as people write them, sorted: in small letters, and with a capital one inside of a sentence."""

    small: tuple[str, ...]
    capital: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """Returns the words that occur twice or more in ``texts``, without those that the curriculum has."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(WORD.findall(text)[1:])  # the first has a capital letter whatever it is
        usual = sorted(
            word
            for word, count in counts.items()
            if count > 1 and len(word) >= MIN_LETTERS and word.lower() not in _TAUGHT_SMALL
        )
        return cls(
            tuple(word for word in usual if word.islower()),
            tuple(word for word in usual if word.istitle()),
        )


def with_any_words(tasks: Sequence[Task], vocabulary: Vocabulary, seed: int) -> list[Task]:
    """Returns those of ``tasks`` that have names or things of the curriculum's lists, with most of these exchanged for
    words of ``vocabulary``. The same for the same seed."""
    draw = random.Random(f"any words {seed}")
    return [changed for task in tasks if (changed := _exchanged(task, vocabulary, draw)).turns != task.turns]


def _exchanged(task: Task, vocabulary: Vocabulary, draw: random.Random) -> Task:
    other: dict[str, str] = {}

    def put(match: re.Match[str]) -> str:
        word = match[0]
        if word.lower() not in _TAUGHT_SMALL:
            return word
        if word not in other:
            pool = vocabulary.capital if word[0].isupper() else vocabulary.small
            other[word] = draw.choice(pool) if draw.random() < EXCHANGED else word
        return other[word]

    return replace(task, turns=tuple(Turn(turn.role, WORD.sub(put, turn.content)) for turn in task.turns))
