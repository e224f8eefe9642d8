"""Finds the values of several recognisers in a text that arrives in pieces, however it is cut.

The start of a match is decided once the text from there can neither become nor lengthen a match, which a partial match
of the pattern tells (``Recogniser.growing``). What is decided is a property of the text, not of its pieces.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

from safety.api import Scan, Span
from safety.patterns.overlaps import Found, order, resolve
from safety.patterns.plain_text import PlainText
from safety.patterns.recogniser import MAX_CONTEXT, MAX_MORE, Candidate, Recogniser


class Track:
    """How far one recogniser has come. Positions count the plain text's characters from ``base`` on."""

    def __init__(self, recogniser: Recogniser) -> None:
        self.recogniser = recogniser
        self.position = 0  # every start before it is decided
        self.running = False  # a value that was cut goes on at the position

    def advance(self, text: str, starts: Sequence[int], final: bool) -> list[Found]:
        """Returns the matches that became certain, with positions in ``text``, and moves on.

        ``starts`` are sorted. A match begins at none but these.
        """
        found: list[Found] = []
        index = 0
        while self.position < len(text):
            if self.running:
                if not self._go_on(text, final, found):
                    break
                continue
            index = bisect_left(starts, self.position, index)
            self.position = starts[index] if index < len(starts) else len(text)
            if self.position >= len(text):
                break
            if self.recogniser.gated.match(text, self.position) is None:
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


def grouped(tracks: Sequence[Track]) -> list[tuple[re.Pattern[str], list[Track]]]:
    """Returns the tracks of each boundary with a pattern that finds the starts of all their gates."""
    groups: dict[str, list[Track]] = defaultdict(list)
    for track in tracks:
        groups[track.recogniser.boundary].append(track)
    return [
        (starts(boundary, tuple(track.recogniser.gate for track in members)), members)
        for boundary, members in groups.items()
    ]


@cache
def starts(boundary: str, gates: tuple[str, ...]) -> re.Pattern[str]:
    """Returns a pattern that matches, without length, where one of ``gates`` follows ``boundary``."""
    return re.compile(f"{boundary}(?=" + "|".join(f"(?:{gate})" for gate in gates) + ")")


class PatternScanner:
    """A ``StreamScanner`` of recognisers."""

    def __init__(self, recognisers: Sequence[Recogniser]) -> None:
        self._tracks = [Track(recogniser) for recogniser in recognisers]
        self._groups = grouped(self._tracks)
        self._plain = PlainText()
        self._text = ""  # the plain text from ``_base`` on
        self._base = 0
        self._pending: list[Found] = []  # positions in the plain text

    def push(self, piece: str, *, final: bool = False) -> Scan:
        """Reads the next piece; see ``StreamScanner``."""
        self._text += self._plain.push(piece)
        for boundary, tracks in self._groups:
            begin = min(track.position for track in tracks)
            starts = [start.start() for start in boundary.finditer(self._text, begin)]
            for track in tracks:
                for match in track.advance(self._text, starts, final):
                    moved = match._replace(start=match.start + self._base, end=match.end + self._base)
                    insort(self._pending, moved, key=order)
        decided = min((track.position for track in self._tracks), default=len(self._text)) + self._base
        found = resolve(self._pending, decided)
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
        for track in self._tracks:
            track.position -= cut
        self._plain.forget(min([self._base, *(found.start for found in self._pending)]))


def find(recognisers: Sequence[Recogniser], text: str) -> tuple[Span, ...]:
    """Returns the spans of a whole text. The parts of a long value are one span here."""
    return joined(PatternScanner(recognisers).push(text, final=True).found)


def joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Returns the spans with the parts of each long value as one."""
    result: list[Span] = []
    for span in spans:
        last = result[-1] if result else None
        if last and span.replacement == "" and last.kind == span.kind and last.end <= span.start:
            result[-1] = Span(last.start, span.end, last.kind, last.replacement)
        else:
            result.append(span)
    return tuple(result)
