"""``PatternScanner``: finds the values of several recognisers in a text that arrives in pieces, wherever it is cut.

The start of a match is decided once the text from there can neither become nor lengthen a match, which a partial match
of the pattern shows (``Recogniser.growing``). The result depends on the text, not on its pieces.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import regex

from safety.api import Scan, Span
from safety.patterns.overlaps import Found, order, resolve
from safety.patterns.plain_text import PlainText
from safety.patterns.recogniser import MAX_CONTEXT, MAX_MORE, Candidate, Recogniser


class Track:
    """The progress of one recogniser in the text. Positions are offsets in the plain text, relative to ``base``."""

    def __init__(self, recogniser: Recogniser) -> None:
        self.recogniser = recogniser
        self.position = 0  # every start before it is decided
        self.running = False  # a value that was cut goes on at the position

    def advance(self, text: str, starts: Sequence[int], final: bool) -> list[Found]:
        """Returns the matches that became certain, with positions in ``text``, and advances past them.

        ``starts`` are the sorted positions at which a match may begin.
        """
        found: list[Found] = []
        index, length, count, gate = 0, len(text), len(starts), self.recogniser.gated.match
        while self.position < length:
            if self.running:
                if not self._go_on(text, final, found):
                    break
                continue
            index = bisect_left(starts, self.position, index)
            if index == count:
                self.position = length
                break
            self.position = starts[index]
            if gate(text, self.position) is None:
                self.position += 1
                continue
            if not final and not self._decided(text):
                break
            self._try(text, found)
        return found

    def _decided(self, text: str) -> bool:
        """Returns whether no further text can make or lengthen a match at the position."""
        recogniser = self.recogniser
        if len(text) - self.position > recogniser.max_length:
            return True
        return recogniser.growing.match(text, self.position, partial=True) is None

    def _try(self, text: str, found: list[Found]) -> None:
        """Notes the value that begins at the position and moves past it; to the next start where there is none."""
        recogniser, start = self.recogniser, self.position
        match = recogniser.matched.match(text, start)
        extent = match and recogniser.validate(Candidate(match, text[max(0, start - MAX_CONTEXT) : start]))
        if match is None or extent is None:
            self.position += 1
            return
        self.running = recogniser.more is not None and match.end() - start >= recogniser.run_length
        value = Found(start + extent[0], start + extent[1], recogniser.kind, recogniser.specificity)
        found.append(value)
        self.position = match.end() if self.running else value.end

    def _go_on(self, text: str, final: bool, found: list[Found]) -> bool:
        """Notes the next part of a value that was cut. Returns False where more text must come first."""
        recogniser = self.recogniser
        if not final and recogniser.continuing.match(text, self.position, partial=True):
            return False
        match = None if recogniser.continued is None else recogniser.continued.match(text, self.position)
        self.running = match is not None
        if match is not None:
            found.append(Found(match.start(), match.end(), recogniser.kind, recogniser.specificity, continues=True))
            self.position = match.end()
        return True


class Group:
    """Runs the recognisers that have the same ``boundary`` over one text: one search finds the starts of all.

    Usually most tracks have no open match. All of these are at the position ``front``, so that a piece of text costs
    nothing for them unless it has a character that can begin one of their matches. ``open`` are the other tracks.
    """

    def __init__(self, boundary: str, recognisers: Sequence[Recogniser]) -> None:
        self._starts = starts(boundary, tuple(recogniser.gate for recogniser in recognisers))
        self._tracks = [Track(recogniser) for recogniser in recognisers]
        self._beginning = beginnings(tuple(recogniser.gate for recogniser in recognisers))
        self.open: list[Track] = []
        self.front = 0

    @property
    def position(self) -> int:
        """The position before which every start is decided."""
        position = self.front
        for track in self.open:
            if track.position < position:
                position = track.position
        return position

    def advance(self, text: str, final: bool) -> list[Found]:
        """Returns the matches that became certain, with positions in ``text``, and advances past them."""
        moving, length = self.open, len(text)
        begins = [start.start() for start in self._starts.finditer(text, self.position if moving else self.front)]
        if begins and begins[-1] == length:  # where the text ends, a gate matches before that is known
            begins.pop()
        if begins and begins[-1] >= self.front:
            moving = [*moving, *self._woken(text, begins)]
        if not moving:
            self.front = length
            return []
        found: list[Found] = []
        self.open = []
        for track in moving:
            found += track.advance(text, begins, final)
            if track.running or track.position < length:
                self.open.append(track)
        self.front = length
        return found

    def shift(self, cut: int) -> None:
        """Moves all positions back by ``cut``."""
        self.front -= cut
        for track in self.open:
            track.position -= cut

    def _woken(self, text: str, begins: Sequence[int]) -> list[Track]:
        """Returns the tracks without an open match that may begin one at ``begins``."""
        places: set[int] = set()
        for begin in begins[bisect_left(begins, self.front) :]:
            places.update(self._beginning[text[begin]])
        woken = [self._tracks[place] for place in sorted(places) if self._tracks[place] not in self.open]
        for track in woken:
            track.position = self.front
        return woken


class Beginnings(dict[str, tuple[int, ...]]):
    """A table from a character to the indexes of the gates that can match a text which begins with it."""

    def __init__(self, gates: Sequence[str]) -> None:
        super().__init__()
        self._gates = [regex.compile(gate) for gate in gates]

    def __missing__(self, char: str) -> tuple[int, ...]:
        places = tuple(place for place, gate in enumerate(self._gates) if gate.match(char, partial=True))
        if len(self) < MAX_CACHED:
            self[char] = places
        return places


MAX_CACHED = 4096  # characters whose gates are remembered


@cache
def beginnings(gates: tuple[str, ...]) -> Beginnings:
    """Returns the table of the patterns ``gates`` by first character. Scanners with the same gates share it."""
    return Beginnings(gates)


def grouped(recognisers: Sequence[Recogniser]) -> list[Group]:
    """Returns the recognisers, grouped by boundary."""
    groups: dict[str, list[Recogniser]] = defaultdict(list)
    for recogniser in recognisers:
        groups[recogniser.boundary].append(recogniser)
    return [Group(boundary, members) for boundary, members in groups.items()]


@cache
def starts(boundary: str, gates: tuple[str, ...]) -> re.Pattern[str]:
    """Returns a zero-width pattern that matches wherever one of ``gates`` follows ``boundary``."""
    return re.compile(f"{boundary}(?=" + "|".join(f"(?:{gate})" for gate in gates) + ")")


class PatternScanner:
    """Runs ``recognisers`` over one text that arrives in pieces. Implements ``StreamScanner``."""

    def __init__(self, recognisers: Sequence[Recogniser]) -> None:
        self._groups = grouped(recognisers)
        self._plain = PlainText()
        self._text = ""  # the plain text from ``_base`` on
        self._base = 0
        self._pending: list[Found] = []  # positions in the plain text

    def push(self, piece: str, *, final: bool = False) -> Scan:
        """Takes the next piece of the text and returns the spans that became certain. ``final``: no piece follows."""
        self._text += self._plain.push(piece)
        decided = len(self._text)
        for group in self._groups:
            for match in group.advance(self._text, final):
                moved = match._replace(start=match.start + self._base, end=match.end + self._base)
                insort(self._pending, moved, key=order)
            if group.open:
                decided = min(decided, group.position)
        decided += self._base
        found = resolve(self._pending, decided) if self._pending else []
        settled = min(decided, self._pending[0].start) if self._pending else decided
        spans = tuple(map(self._span, found))
        scan = Scan(spans, self._plain.original_length if final else self._plain.original(settled))
        self._forget(decided - self._base)
        return scan

    def _span(self, found: Found) -> Span:
        """Returns a match as a span of the original text."""
        start, end = self._plain.original(found.start), self._plain.original_end(found.end)
        return Span(start, end, found.kind, "" if found.continues else None)

    def _forget(self, decided: int) -> None:
        """Drops the text that neither matches nor their context need, from time to time."""
        cut = decided - MAX_CONTEXT
        if cut < MAX_MORE:
            return
        self._text = self._text[cut:]
        self._base += cut
        for group in self._groups:
            group.shift(cut)
        self._plain.forget(min([self._base, *(found.start for found in self._pending)]))


def find(recognisers: Sequence[Recogniser], text: str) -> tuple[Span, ...]:
    """Returns the spans that ``recognisers`` find in a whole text. The parts of a long value are joined into one
    span."""
    return joined(PatternScanner(recognisers).push(text, final=True).found)


def joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Returns ``spans`` with the parts of each long value joined into one span."""
    result: list[Span] = []
    for span in spans:
        last = result[-1] if result else None
        if last and span.replacement == "" and last.kind == span.kind and last.end <= span.start:
            result[-1] = Span(last.start, span.end, last.kind, last.replacement)
        else:
            result.append(span)
    return tuple(result)
