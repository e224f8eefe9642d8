"""A request in frames: ``Frames`` draws the words, ``Request`` is what a rule makes of them."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from deployments.models.training.pairs.wording import FAMILIES, WORDS


class Request(NamedTuple):
    """``said`` and ``again``: one request in two ways. ``others``: requests that differ from it in one thing."""

    said: str
    again: str
    others: tuple[str, ...]


class Frames:
    """Draws frames and words."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def one(self, name: str) -> Any:
        return self.rng.choice(FAMILIES.get(name) or WORDS[name])

    def two(self, name: str) -> tuple[Any, Any]:
        first, second = self.rng.sample(FAMILIES.get(name) or WORDS[name], 2)
        return first, second

    def say(self, frames: tuple[str, ...], content: str) -> str:
        text = self.rng.choice(frames).replace("{x}", content)
        return text[0].upper() + text[1:] if self.rng.random() < 0.7 else text.lower()

    def request(self, frames: tuple[str, ...], content: str, *others: str) -> Request:
        """The other contents stand in the frame of the first half of the time: only the change tells them apart."""
        frame = self.rng.choice(frames)
        again = (frame,) if self.rng.random() < 0.15 else frames
        said = self.say((frame,), content)
        wrong = tuple(self.say((frame,) if self.rng.random() < 0.6 else frames, other) for other in others)
        return Request(said, self.say(again, content), wrong)

    def number(self) -> tuple[int, int]:
        first = self.rng.choice((self.rng.randint(2, 12), self.rng.randint(13, 100), self.rng.randint(100, 5000)))
        return first, first + self.rng.choice((1, 2, 5, 10, first, 9 * first))
