"""``JsonText``: decodes the strings of JSON that arrives in pieces, for checks, and writes the JSON again with
replacements.

A check must see ``alice@example.com`` where the model wrote ``\\u0061lice@example.com``. The readable text is the JSON
with each escape replaced by its character; everything else stays. Offsets in the readable text are translated back
here, so that a replacement leaves valid JSON: within a string it is escaped; a number or a word becomes a string;
brackets, commas and quotation marks stay.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from safety.api import Span

STRING_RUN = re.compile(r'[^"\\]+')
LITERAL_RUN = re.compile(r"[^\s\"{}\[\]:,]+")
MARKS_RUN = re.compile(r"[\s{}\[\]:,]+")
ESCAPE = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[^u])", re.DOTALL)
PARTIAL_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)?")
SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


MAX_LITERAL = 1024
"""The characters of a number or a word that are written together. No JSON has longer ones but numbers of more digits:
the model has ignored its form, and its text must not be held to its end."""


class _Kind(Enum):
    STRING = auto()  # characters within a string
    ESCAPE = auto()  # an escape within a string: one readable character
    LITERAL = auto()  # a number or a word
    MARK = auto()  # brackets, commas, colons, quotation marks and white space


@dataclass(slots=True)
class _Unit:
    """A part of the JSON, ``raw``, which is ``length`` readable characters. Only escapes differ in length."""

    kind: _Kind
    raw: str
    length: int


class JsonText:
    """Decodes one JSON text that arrives in pieces, and writes it again with replacements.

    ``push`` takes a piece of raw JSON and returns readable text. ``write`` returns the JSON of the readable text up to
    an offset. What was pushed and not written yet is held. Text that is no JSON is kept as it is. ``written`` is the
    number of raw characters that were written or replaced."""

    def __init__(self) -> None:
        self._units: deque[_Unit] = deque()
        self._partial = ""  # an escape that is incomplete
        self._in_string = False
        self._final = False
        self._start = 0  # the readable offset of the first unit
        self._pending: tuple[Span, ...] = ()  # spans whose number or word is incomplete
        self._replaced_at = -1  # the readable start of the last span whose replacement is written
        self.written = 0

    def push(self, piece: str, *, final: bool = False) -> str:
        """Takes the next raw piece and returns the readable text that it completes. ``final``: no piece follows."""
        self._final = self._final or final
        raw, self._partial = self._partial + piece, ""
        readable: list[str] = []
        place = 0
        while place < len(raw):
            place = self._next(raw, place, readable)
        return "".join(readable)

    def write(self, end: int, replaced: Sequence[Span]) -> tuple[str, tuple[Span, ...]]:
        """Writes the JSON of the readable text before ``end``, with the ``replaced`` spans replaced. A number or a word
        is written when it is complete.

        ``replaced`` are spans of the readable text that was not written before, sorted, with replacements. Returns the
        JSON and the spans of the raw text that were replaced.
        """
        spans, self._pending = deque((*self._pending, *replaced)), ()
        pieces: list[str] = []
        raw_spans: list[Span] = []
        while self._units and self._start < end:
            unit, last = self._units[0], self._start + self._units[0].length
            while spans and spans[0].end <= self._start:
                spans.popleft()
            if unit.kind is _Kind.LITERAL and (end < last or self._open(unit)):
                break
            span = spans[0] if spans and spans[0].start < min(end, last) else None
            if span is None or unit.kind is _Kind.MARK:
                pieces.append(self._take(min(end, last)))
            elif unit.kind is not _Kind.LITERAL and self._start < span.start:
                pieces.append(self._take(span.start))
            else:
                text, begun = self._replacement(span, unit.kind), self.written
                self._take(last if unit.kind is _Kind.LITERAL else min(end, last, span.end))
                pieces.append(text)
                raw_spans.append(Span(begun, self.written, span.kind, text))
        self._pending = tuple(spans)
        return "".join(pieces), tuple(raw_spans)

    def _next(self, raw: str, place: int, readable: list[str]) -> int:
        """Reads the unit at ``place``, adds its readable text, and returns where the next one begins."""
        if raw[place] == '"':
            self._in_string = not self._in_string
            return self._add(_Kind.MARK, '"', '"', readable) + place
        if not self._in_string:
            kind, run = _Kind.MARK, MARKS_RUN.match(raw, place)
            if run is None:
                kind, run = _Kind.LITERAL, LITERAL_RUN.match(raw, place)
            text = raw[place] if run is None else run[0]
            return self._add(kind, text, text, readable) + place
        if raw[place] != "\\":
            run = STRING_RUN.match(raw, place)
            text = raw[place] if run is None else run[0]
            return self._add(_Kind.STRING, text, text, readable) + place
        if not self._final and PARTIAL_ESCAPE.fullmatch(raw, place):
            self._partial = raw[place:]
            return len(raw)
        escape = ESCAPE.match(raw, place)
        if escape is None:  # no JSON: the backslash stands for itself
            return self._add(_Kind.STRING, "\\", "\\", readable) + place
        return self._add(_Kind.ESCAPE, escape[0], _character(escape[0]), readable) + place

    def _add(self, kind: _Kind, raw: str, text: str, readable: list[str]) -> int:
        """Adds a unit, which goes on the last one if that is an incomplete number or word. Returns its raw length."""
        last = self._units[-1] if self._units else None
        if last is not None and last.kind is kind is _Kind.LITERAL and last.length < MAX_LITERAL:
            last.raw += raw
            last.length += len(text)
        else:
            self._units.append(_Unit(kind, raw, len(text)))
        readable.append(text)
        return len(raw)

    def _open(self, unit: _Unit) -> bool:
        """Returns whether more characters may belong to ``unit``, a number or a word."""
        return unit is self._units[-1] and not self._final and unit.length < MAX_LITERAL

    def _take(self, end: int) -> str:
        """Takes the first unit up to the readable offset ``end`` and returns its raw text."""
        unit, count = self._units[0], end - self._start
        if count < unit.length:
            raw, unit.raw = unit.raw[:count], unit.raw[count:]
            unit.length -= count
        else:
            raw = self._units.popleft().raw
        self._start = end
        self.written += len(raw)
        return raw

    def _replacement(self, span: Span, kind: _Kind) -> str:
        """Returns the JSON that takes the place of a unit within ``span``: the replacement once, then nothing."""
        text = "" if span.start == self._replaced_at else json.dumps(span.replacement, ensure_ascii=False)[1:-1]
        self._replaced_at = span.start
        return f'"{text}"' if kind is _Kind.LITERAL else text


def _character(escape: str) -> str:
    """Returns the character of an escape; U+FFFD for half of a surrogate pair."""
    if escape[1] != "u":
        return SHORT.get(escape[1], escape[1])
    units = bytes.fromhex(escape.replace("\\u", ""))
    return units.decode("utf-16-be", "replace")
