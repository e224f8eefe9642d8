"""Stop strings. Text is held back as long as it may be the beginning of a stop string."""

from __future__ import annotations


class StopStrings:
    """Searches the text of one sequence for stop strings. The text it returns never contains one."""

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = strings
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Adds text. Returns the text that may be shown now, and whether a stop string was found; the text then ends
        before it."""
        if not self._strings:
            return text, False
        text = self._held + text
        found = self._first(text)
        if found >= 0:
            self._held = ""
            return text[:found], True
        keep = self._possible_start(text)
        self._held = text[keep:]
        return text[:keep], False

    def flush(self) -> str:
        """Returns the text that is held back, when no more text follows."""
        held, self._held = self._held, ""
        return held

    def _first(self, text: str) -> int:
        """Returns where the stop string that ends first begins, the longest one if several end there; -1 if there is
        none. So the answer does not depend on how the text is divided into tokens."""
        found = [(at + len(s), at) for s in self._strings if (at := text.find(s)) >= 0]
        return min(found)[1] if found else -1

    def _possible_start(self, text: str) -> int:
        """Returns the position at which the longest possible beginning of a stop string at the end of ``text`` starts;
        the length of ``text`` if there is none."""
        longest = max(map(len, self._strings)) - 1
        for start in range(max(0, len(text) - longest), len(text)):
            if any(s.startswith(text[start:]) for s in self._strings):
                return start
        return len(text)
