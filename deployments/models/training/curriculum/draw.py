"""Random draws that keep training and evaluation apart.

Every value and every phrasing belongs, by its checksum or place, to one side only. A draw for training never returns
what is held out for evaluation, and the other way round.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from deployments.models.training.curriculum.words import (
    CITIES,
    DOMAINS,
    MONTHS,
    NAMES,
    SURNAMES,
    SYLLABLES,
    split,
)

T = TypeVar("T")

HELD_OUT_SHARE = 6  # one value in so many is held out
INVENTED = 0.5  # of the names in training: made of syllables, so that copying is learnt and not a list of names
FILLERS = frozenset(split("the a an of this that these is it in me to for with please do does which what"))
OPENINGS = ("Please: ", "Question: ", "Task: ", "Hi. ", "OK. ", "Now: ")


def is_held_out(value: object) -> bool:
    """Whether ``value``, by the checksum of its text, is kept for evaluation."""
    return zlib.crc32(repr(value).encode()) % HELD_OUT_SHARE == 0


class Draw(random.Random):
    """A source of random values on one side: ``held_out`` for evaluation, otherwise for training."""

    def __init__(self, seed: int | str, *, held_out: bool = False) -> None:
        super().__init__(seed)
        self.held_out = held_out

    def unseen(self, make: Callable[[], T]) -> T:
        """``make()`` again and again until the value is of this side."""
        while is_held_out(value := make()) != self.held_out:
            pass
        return value

    def of(self, words: Sequence[str], count: int = 1) -> list[str]:
        """``count`` different words of this side."""
        return self.sample([word for word in words if is_held_out(word) == self.held_out], count)

    def one(self, words: Sequence[str]) -> str:
        """One word of this side."""
        return self.of(words)[0]

    def mix(self, words: Sequence[str], count: int) -> list[str]:
        """``count`` different words of both sides, in an order and choice that is of this side."""
        return list(self.unseen(lambda: tuple(self.sample(words, count))))

    def pair(self, low: int, high: int) -> tuple[int, int]:
        """Two numbers in [low, high]; the pair, in either order, is of this side."""
        while True:
            pair = (self.randint(low, high), self.randint(low, high))
            if is_held_out(tuple(sorted(pair))) == self.held_out:
                return pair

    def may_work(self, a: int, b: int) -> bool:
        """Whether a sum or difference of these two may stand in the working of an answer: in training none may that is
        asked for in evaluation."""
        return self.held_out or not is_held_out(tuple(sorted((a, b))))

    def phrase(self, templates: Sequence[str], held_out: int = 2) -> str:
        """One of ``templates``; the last ``held_out`` are kept for evaluation, those before come a little reworded."""
        if self.held_out:
            return self.choice(templates[-held_out:])
        template = self.choice(templates[:-held_out])
        shorter = self._shortened(template)
        if shorter.casefold() not in {kept.casefold() for kept in templates[-held_out:]}:
            template = shorter
        if self.random() < 0.1:
            template = template[0].lower() + template[1:]
        return self.choice(OPENINGS) + template if self.random() < 0.1 else template

    def _shortened(self, template: str) -> str:
        """Sometimes with fewer words that say little: many phrasings of the few that are written down."""
        if self.random() >= 0.4:
            return template
        lines = [
            " ".join(word for word in line.split(" ") if word.lower() not in FILLERS or self.random() < 0.7)
            for line in template.split("\n")
        ]
        return "\n".join(line for line in lines if line) or template

    def invented(self) -> str:
        """A name that nobody has, of this side."""
        return self.unseen(lambda: "".join(self.choices(SYLLABLES, k=self.randint(2, 3))).capitalize())

    def names(self, count: int = 1) -> list[str]:
        """Different first names; in training some are invented."""
        return self._known_or_invented(NAMES, count)

    def cities(self, count: int = 1) -> list[str]:
        """Different cities; in training some are invented."""
        return self._known_or_invented(CITIES, count)

    def _known_or_invented(self, words: Sequence[str], count: int) -> list[str]:
        drawn = self.of(words, count)
        if not self.held_out:
            drawn = [self.invented() if self.random() < INVENTED else word for word in drawn]
        return drawn if len(set(drawn)) == count else self._known_or_invented(words, count)

    def name(self) -> str:
        """A first name."""
        return self.names()[0]

    def email(self, name: str) -> str:
        """An e-mail address for ``name``."""
        surname, number = self._known_or_invented(SURNAMES, 1)[0].lower(), self.randint(1, 99)
        first = name.lower()
        local = self.choice((f"{first}.{surname}", f"{first[0]}.{surname}", f"{first}{number}", f"{surname}{number}"))
        return f"{local}@{self.choice(DOMAINS)}"

    def day(self) -> tuple[int, int, int]:
        """A date as (day, month, year), of this side."""
        return self.unseen(lambda: (self.randint(1, 28), self.randint(1, 12), self.randint(1950, 2030)))

    def phone(self) -> str:
        """A short phone number, of this side."""
        return self.unseen(lambda: f"{self.randint(200, 999)}-{self.randint(1000, 9999)}")


def written(day: tuple[int, int, int]) -> str:
    """``5 March 2024``."""
    return f"{day[0]} {MONTHS[day[1] - 1]} {day[2]}"


def iso(day: tuple[int, int, int]) -> str:
    """``2024-03-05`` (ISO 8601)."""
    return f"{day[2]}-{day[1]:02d}-{day[0]:02d}"
