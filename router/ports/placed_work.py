"""``PlacedWork``: what one router has sent to a replica and has no first token of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from engine.api import Priority

CLASSES = len(Priority)


class PlacedWork(NamedTuple):
    """Requests, and the tokens of their prompts that were not cached when they were sent, by class in the order of
    ``Priority``."""

    requests: tuple[int, ...] = (0,) * CLASSES
    tokens: tuple[int, ...] = (0,) * CLASSES

    @classmethod
    def of_all(cls, works: Iterable[PlacedWork]) -> PlacedWork:
        """Returns the sum of ``works``."""
        requests, tokens = [0] * CLASSES, [0] * CLASSES
        for work in works:
            for at in range(CLASSES):
                requests[at] += work.requests[at]
                tokens[at] += work.tokens[at]
        return cls(tuple(requests), tuple(tokens))
