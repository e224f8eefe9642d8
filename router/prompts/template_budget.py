"""``Budget``: what is left of the loop iterations, the characters, the work and the time of one rendering."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from jinja2 import TemplateError, Undefined
from jinja2.runtime import Context

MAX_STEPS = 10_000  # iterations of all loops of a rendering together
MAX_CHARACTERS = 262_144  # that a rendering makes, intermediate texts included
MAX_WORK = 4 * MAX_CHARACTERS  # characters that filters and methods read, or as much else as takes as long
MAX_RENDER_S = 0.05
BUDGET = "_budget"  # a name that templates cannot write, since it begins with an underscore


class TemplateLimitError(TemplateError):
    """A rendering exceeds a limit of the sandbox. The message is for people."""


class Budget:
    """The remaining budget of one rendering: loop iterations, characters, work and time. ``now`` is a clock in
    seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._ends_at = now() + MAX_RENDER_S
        self._steps = MAX_STEPS
        self._characters = MAX_CHARACTERS
        self._work = MAX_WORK

    def step(self) -> None:
        """Counts one iteration of a loop. Raises TemplateLimitError after MAX_STEPS, and as ``check_time`` does."""
        self._steps -= 1
        if self._steps < 0:
            raise TemplateLimitError(f"its loops run more than {MAX_STEPS} times")
        self.check_time()

    def charge(self, characters: int) -> None:
        """Counts ``characters`` of a text that is about to be made. Raises TemplateLimitError beyond MAX_CHARACTERS,
        and as ``check_time`` does."""
        self._characters -= characters
        if self._characters < 0:
            raise TemplateLimitError(f"it makes more than {MAX_CHARACTERS} characters")
        self.check_time()

    def work(self, characters: int) -> None:
        """Counts ``characters`` of a text that a filter or a method is about to read, or as much else as takes as long.
        Raises TemplateLimitError beyond MAX_WORK, and as ``check_time`` does."""
        self._work -= characters
        if self._work < 0:
            raise TemplateLimitError(f"its filters read more than {MAX_WORK} characters")
        self.check_time()

    def check_time(self) -> None:
        """Raises TemplateLimitError if the rendering has taken longer than MAX_RENDER_S seconds."""
        if self._now() > self._ends_at:
            raise TemplateLimitError(f"it runs longer than {MAX_RENDER_S * 1000:.0f} ms")


def budget_of(context: Context) -> Budget:
    """Returns the budget of the rendering that has ``context``."""
    budget: Budget = context[BUDGET]
    return budget


def charge_value(charge: Callable[[int], None], value: Any) -> None:
    """Charges the characters of all texts in ``value``, and one for each other item, by ``charge``: as characters that
    are made or as work. Raises TemplateError for what is no JSON value, such as a function."""
    if isinstance(value, str):
        return charge(len(value))
    charge(1)
    if isinstance(value, dict):
        for name, each in value.items():
            charge_value(charge, name)
            charge_value(charge, each)
    elif isinstance(value, list | tuple):
        for each in value:
            charge_value(charge, each)
    elif not isinstance(value, int | float | None | Undefined):
        raise TemplateError(f"{type(value).__name__} is no text, number, list or object; |list makes a list")
    return None
