"""Reasoning at the beginning of an answer: what a model writes between ``<think>`` and ``</think>``."""

from __future__ import annotations

from collections.abc import Sequence

REASONING_START, REASONING_END = "<think>", "</think>"
MAX_LEADING_SPACE = 64  # characters of white space before the start; with more of it there is no reasoning


class ReasoningParser:
    """Splits the text of one choice into reasoning and the rest, while it is generated.

    ``marks`` begin what ends the reasoning as well and is part of the rest, such as a tool call. Reasoning that is cut
    off has no end. Nothing is stripped from either part; white space before the reasoning is dropped.
    """

    def __init__(self, marks: Sequence[str] = ()) -> None:
        self._ends = (REASONING_END, *marks)
        self._held = ""
        self._inside = False
        self.done = False  # all that follows is no reasoning

    def push(self, text: str) -> tuple[str, str]:
        """The reasoning and the rest that ``text`` completes."""
        if self.done:
            return "", text
        self._held += text
        if not self._inside:
            begun = self._held.lstrip()
            if len(self._held) - len(begun) > MAX_LEADING_SPACE:
                return "", self._release()
            if not begun.startswith(REASONING_START):
                return "", "" if REASONING_START.startswith(begun) else self._release()
            self._inside, self._held = True, begun.removeprefix(REASONING_START)
        return self._split()

    def finish(self) -> tuple[str, str]:
        """The reasoning and the rest that were held back, when no more text will come."""
        held = self._release()
        return (held, "") if self._inside else ("", held)

    def _split(self) -> tuple[str, str]:
        places = {self._held.find(end): end for end in self._ends}
        places.pop(-1, None)
        if not places:
            keep = len(self._held) - _possible_end(self._held, self._ends)
            reasoning, self._held = self._held[:keep], self._held[keep:]
            return reasoning, ""
        place = min(places)
        held = self._release()
        return held[:place], held[place:].removeprefix(REASONING_END)

    def _release(self) -> str:
        held, self._held, self.done = self._held, "", True
        return held


def _possible_end(text: str, ends: Sequence[str]) -> int:
    """Length of the longest tail of ``text`` that may be the beginning of one of ``ends``."""
    longest = max(map(len, ends)) - 1
    tails = range(min(longest, len(text)), 0, -1)
    return next((length for length in tails if any(end.startswith(text[-length:]) for end in ends)), 0)
