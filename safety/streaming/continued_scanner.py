"""``ContinuedScanner``: scans a text that continues another one, such as the last message of a request."""

from __future__ import annotations

from collections.abc import Callable

from safety.api import Scan, Span, StreamScanner

MAX_BEFORE = 2048
"""Characters before a text that its checks read: more than the longest match has."""


class ContinuedScanner:
    """A ``StreamScanner`` whose text follows ``before``. Offsets count from the end of ``before``.

    The text is scanned twice: by itself, and together with ``before``, as long as a match that begins in ``before`` may
    still end in the text. Such a match is reported from the text's beginning on, and may overlap one of the text
    itself. The scan of the text by itself is needed because a client sees nothing before the text, so a word may begin
    there.
    """

    def __init__(self, make: Callable[[], StreamScanner], before: str) -> None:
        self._scanner = make()
        self._across: StreamScanner | None = make()
        self._before = before[-MAX_BEFORE:]
        self._length = len(self._before)

    def push(self, piece: str, *, final: bool = False) -> Scan:
        """Takes the next piece of the text and returns the spans that became certain. ``final``: no piece follows."""
        scan = self._scanner.push(piece, final=final)
        if self._across is None:
            return scan
        before, self._before = self._before, ""
        across = self._across.push(before + piece, final=final)
        if across.settled >= self._length:
            self._across = None
        found = [self._moved(span) for span in across.found if span.start < self._length < span.end]
        return Scan((*found, *scan.found), min(scan.settled, max(0, across.settled - self._length)))

    def _moved(self, span: Span) -> Span:
        return Span(0, span.end - self._length, span.kind, span.replacement)
