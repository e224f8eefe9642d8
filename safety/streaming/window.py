"""``Window``: the part of a growing text that is not sent yet, and the spans in it that will be replaced. Pure."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass

from safety.api import Span


@dataclass(frozen=True, slots=True, order=True)
class _Redaction:
    """The characters ``[start, end)``, replaced by ``text``, which comes from the rule with this ``rank``."""

    start: int
    end: int
    rank: int
    kind: str
    text: str


class Window:
    """Holds the end of one text that arrives in pieces, until it may be sent. Offsets count characters from the
    beginning of the whole text.

    ``sent`` is the offset up to which text was released, ``length`` the length of the text so far::

        0 ────────── sent ─────── held ─────── length
    """

    def __init__(self) -> None:
        self._held = ""
        self._redactions: list[_Redaction] = []  # sorted and disjoint, none of them released
        self._limit: int | None = None
        self.sent = 0
        self.length = 0

    def push(self, piece: str) -> None:
        """Adds a piece to the held text."""
        self._held += piece
        self.length += len(piece)

    def replace(self, spans: Iterable[Span], rank: int) -> None:
        """Marks ``spans`` to be replaced when they are released. Spans that overlap are joined into one, with the
        replacement of the lowest ``rank``, then of the first."""
        for span in spans:
            text = f"<{span.kind}>" if span.replacement is None else span.replacement
            self._add(_Redaction(max(span.start, self.sent), span.end, rank, span.kind, text))

    def halt(self, at: int) -> None:
        """Ends the text: nothing from the offset ``at`` on will be released."""
        self._limit = at if self._limit is None else min(at, self._limit)

    def release(self, end: int) -> tuple[str, tuple[Span, ...]]:
        """Releases the text before ``end``; a replaced span is released as a whole. Returns the text to be sent, and
        the spans of the original that were replaced, with their replacements."""
        if self._limit is not None and self._limit < end:
            end = self._limit
        redactions = self._redactions
        if not redactions:
            return self._take(end), ()
        pieces: list[str] = []
        replaced: list[Span] = []
        while redactions and redactions[0].end <= end:
            redaction = redactions.pop(0)
            pieces += (self._take(redaction.start), redaction.text)
            self._take(redaction.end)
            replaced.append(Span(redaction.start, redaction.end, redaction.kind, redaction.text))
        pieces.append(self._take(min(end, redactions[0].start) if redactions else end))
        return "".join(pieces), tuple(replaced)

    def _add(self, new: _Redaction) -> None:
        if new.end <= new.start:
            return
        overlapping = [old for old in self._redactions if old.start < new.end and new.start < old.end]
        if overlapping:
            every = [*overlapping, new]
            self._redactions = [old for old in self._redactions if old not in overlapping]
            first = min(every, key=lambda each: (each.rank, each.start, -each.end))
            start, end = min(each.start for each in every), max(each.end for each in every)
            new = _Redaction(start, end, first.rank, first.kind, first.text)
        insort(self._redactions, new)

    def _take(self, end: int) -> str:
        """Takes the text before ``end`` out of the held text and returns it."""
        count = end - self.sent
        if count <= 0:
            return ""
        taken, self._held = self._held[:count], self._held[count:]
        self.sent += len(taken)
        return taken
