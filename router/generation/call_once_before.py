"""``CallOnceBefore``: calls a function once, before the first call of any of the functions that it wraps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")


class CallOnceBefore:
    """Calls ``first`` once, before the first call of any of the functions that ``wrap`` has returned."""

    def __init__(self, first: Callable[[], None]) -> None:
        self._first: Callable[[], None] | None = first

    @property
    def called(self) -> bool:
        """Whether ``first`` was called."""
        return self._first is None

    def wrap(self, function: Callable[[A], R]) -> Callable[[A], R]:
        """Returns a function that calls ``function``, and ``first`` before it unless ``first`` was called already."""

        def call(argument: A) -> R:
            if (first := self._first) is not None:
                self._first = None
                first()
            return function(argument)

        return call
