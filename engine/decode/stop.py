"""Stop strings: text is held back while it could still become one, and no longer."""

from __future__ import annotations


class StopStrings:
    """Watches the text of one sequence. The text let through never contains a stop string."""

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = strings
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Text that may be shown now, and whether a stop string has been met; the text ends before it."""
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
        """What is held back, when no more text will come."""
        held, self._held = self._held, ""
        return held

    def _first(self, text: str) -> int:
        """Where the stop string that ends first begins, the longest if several end there; -1 without any.

        That is the one a reader of single characters would have met, so the answer does not depend on how the text
        was cut into tokens.
        """
        found = [(at + len(s), at) for s in self._strings if (at := text.find(s)) >= 0]
        return min(found)[1] if found else -1

    def _possible_start(self, text: str) -> int:
        """Length of ``text`` without the longest tail that begins a stop string."""
        longest = max(map(len, self._strings)) - 1
        for start in range(max(0, len(text) - longest), len(text)):
            if any(s.startswith(text[start:]) for s in self._strings):
                return start
        return len(text)
