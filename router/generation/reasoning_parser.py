"""``ReasoningParser``: finds reasoning, which a model writes between ``<think>`` and ``</think>`` before its answer."""

from __future__ import annotations

from collections.abc import Sequence

REASONING_START, REASONING_END = "<think>", "</think>"
MAX_LEADING_SPACE = 64  # the most white space before ``<think>``, in characters; after more, all is text


class ReasoningParser:
    """The incremental parser that splits the text of one choice into reasoning and the rest.

    Reasoning ends at ``</think>``, at the first of ``marks``, such as the start of a tool call, or with the answer. A
    mark is part of the rest; the tags are part of neither. White space before ``<think>`` is dropped; all other white
    space stays. ``done`` is True once all further text belongs to the rest.
    """

    def __init__(self, marks: Sequence[str] = ()) -> None:
        self._ends = (REASONING_END, *marks)
        self._held = ""
        self._inside = False
        self.done = False

    def push(self, text: str) -> tuple[str, str]:
        """Takes the next text of the choice. Returns the reasoning and the other text that can be passed on now; each
        may be empty. Text that may begin a tag is held back for the next call. Sets ``done``."""
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
        """Sets ``done`` and returns the reasoning and the other text that were held back. Called once, at the end of
        the choice."""
        held = self._release()
        return (held, "") if self._inside else ("", held)

    def _split(self) -> tuple[str, str]:
        """Splits the held text, which is within the reasoning, at the first end. Keeps back what may begin an end."""
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
        """Empties the held text, sets ``done`` and returns the text."""
        held, self._held, self.done = self._held, "", True
        return held


def _possible_end(text: str, ends: Sequence[str]) -> int:
    """Returns the length of the longest suffix of ``text`` that is a proper prefix of one of ``ends``."""
    longest = max(map(len, ends)) - 1
    tails = range(min(longest, len(text)), 0, -1)
    return next((length for length in tails if any(end.startswith(text[-length:]) for end in ends)), 0)
