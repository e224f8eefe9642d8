"""``CheckSchedule``: decides when a growing text is classified, and which part of it. Pure: the time is an argument."""

from __future__ import annotations

import re
from dataclasses import dataclass

from safety.streaming.plan import Pace
from safety.streaming.recent_checks import RecentChecks

SENTENCE_END = re.compile(r"[.!?…;:][\"')\]]*\s|[。！？\n]")
"""The end of a sentence or a line, with the first character behind it where that decides."""


@dataclass(frozen=True, slots=True)
class Due:
    """A check to be run now: of ``text``, whose new part ends at the offset ``end`` of the whole text."""

    text: str
    end: int


class CheckSchedule:
    """Decides when the next piece of one growing text is classified, and with which context. One check runs at a time.
    ``pace`` sets their sizes. The text continues ``before``, which is read as context. ``recent`` has the durations of
    the checks of all texts; None: of this one.

    ``approved`` is the offset up to which checks have ended without a finding. Text before it is classified again only
    as context.
    """

    def __init__(self, pace: Pace, before: str = "", recent: RecentChecks | None = None) -> None:
        self._pace = pace
        self._recent = RecentChecks() if recent is None else recent
        self._size = pace.start  # the new characters that make a check due
        self._next_size = pace.first
        self._text = before[-pace.window :]  # the whole text from the offset _base on
        self._base = -len(self._text)
        self._since = 0.0  # when the oldest character arrived that no check has begun with
        self._begun = 0  # the offset up to which checks have begun
        self._begun_at = 0.0  # when the last check began
        self._rested_at = 0.0  # when the next one may begin, unless the text is at its end
        self._border = False  # whether a sentence ends behind _begun
        self._final = False
        self.approved = 0

    @property
    def complete(self) -> bool:
        """Whether the whole text that has arrived is checked."""
        return self.approved == self._length

    def push(self, piece: str, now: float, *, final: bool = False) -> None:
        """Takes the next piece. ``now`` is in seconds of any monotonic clock. ``final``: no piece follows, so that what
        has come is due at once."""
        self._final = self._final or final
        if not piece:
            return
        if self._begun == self._length:
            self._since = now
        if not self._border:
            self._border = SENTENCE_END.search(self._text[-2:] + piece) is not None
        self._text += piece

    def due_at(self) -> float | None:
        """Returns the time at which the next check is due, in seconds of the clock of ``push``; it may be in the past.
        None: there is nothing to check, or a check is running."""
        new = self._length - self._begun
        if not new or self._begun > self.approved:
            return None
        if self._final:
            return self._since
        enough = self._size // 4 if self._border else self._size
        return max(self._rested_at, self._since + (0.0 if new >= enough else self._pace.wait_s))

    def begin(self, now: float) -> Due | None:
        """Begins the next check and returns it; None if none is due."""
        due_at = self.due_at()
        if due_at is None or due_at > now:
            return None
        pace, end = self._pace, self._length
        # The window holds all new text, and context before it.
        start = max(min(self._begun - pace.overlap, end - pace.window), self._base)
        text = self._text[start - self._base :]
        self._begun, self._border, self._begun_at = end, False, now
        self._size, self._next_size = self._next_size, min(4 * self._next_size, pace.most)
        self._forget(end - pace.window)
        return Due(text, end)

    def finish(self, due: Due, now: float) -> None:
        """Ends the running check: the next one may begin, after a rest."""
        self.approved = due.end
        took = now - self._begun_at
        self._recent.add(took, now)
        self._rested_at = now + min(self._pace.rest * max(took, self._recent.usual_s(now)), self._pace.most_rest_s)

    @property
    def _length(self) -> int:
        return self._base + len(self._text)

    def _forget(self, offset: int) -> None:
        """Drops the text before ``offset``, which no later check reads."""
        if offset > self._base:
            self._text, self._base = self._text[offset - self._base :], offset
