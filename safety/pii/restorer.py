"""``Restorer``: replaces pseudonyms by their values in a text that arrives in pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping

import regex

from safety.patterns.recogniser import growing

MAX_BEFORE = 8  # characters before a pseudonym that decide whether it begins there: ``\u00e9`` in a JSON string
BEFORE = r"(?:(?<![A-Za-z0-9_])|(?<=(?<!\\)(?:\\\\)*\\(?:[nrtbf]|u[0-9a-fA-F]{4})))"
"""A pseudonym within a longer name is none; one after an escape of a JSON string is."""


class Restorer:
    """Replaces the pseudonyms of ``restored`` in one text.

    ``in_json``: the text is JSON and the pseudonyms are in its strings, as in the arguments of a tool call; the values
    are then escaped. It holds back only a part of a pseudonym, or a whole one until the next character.
    """

    def __init__(self, restored: Mapping[str, str], *, in_json: bool = False) -> None:
        self._values = {name: json.dumps(value)[1:-1] if in_json else value for name, value in restored.items()}
        names = "|".join(regex.escape(name) for name in sorted(restored, key=len, reverse=True))
        self._pattern = regex.compile(rf"{BEFORE}(?:{names})(?!\d)") if restored else None
        self._growing = growing(rf"{BEFORE}(?:{names})(?!\d)") if restored else None
        self._longest = max(map(len, restored), default=0) + 1
        self._text = ""  # what is held, and up to MAX_BEFORE characters before it
        self._sent = 0  # of these characters

    def push(self, piece: str, *, final: bool = False) -> str:
        """Takes the next piece and returns the text that may be sent. ``final``: it is the last piece."""
        self._text += piece
        if self._pattern is None or self._growing is None:
            sent, self._text = self._text, ""
            return sent
        end = len(self._text)
        if not final:
            begin = max(self._sent, end - self._longest)
            partial = self._growing.search(self._text, begin, partial=True)
            end = end if partial is None else partial.start()
        parts: list[str] = []
        for match in self._pattern.finditer(self._text, self._sent):
            if match.start() >= end:
                break
            parts += self._text[self._sent : match.start()], self._values[match[0]]
            self._sent = match.end()
        if end > self._sent:
            parts.append(self._text[self._sent : end])
            self._sent = end
        cut = max(0, self._sent - MAX_BEFORE)
        self._text, self._sent = self._text[cut:], self._sent - cut
        return "".join(parts)
