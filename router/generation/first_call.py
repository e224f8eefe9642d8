"""``FirstCall``: calls a function once, before the first call of any of several others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")


class FirstCall:
    """Calls ``first`` before the first call of the functions that ``before`` has returned."""

    def __init__(self, first: Callable[[], None]) -> None:
        self._first: Callable[[], None] | None = first

    def before(self, function: Callable[[A], R]) -> Callable[[A], R]:
        """Returns ``function``, which calls ``first`` before it if nothing has yet."""

        def call(argument: A) -> R:
            if (first := self._first) is not None:
                self._first = None
                first()
            return function(argument)

        return call
