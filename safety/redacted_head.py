"""``redacted_head``: the beginning of a text without personal data and secrets, for those who may not see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from safety.api import Span
from safety.patterns.recogniser import Recogniser
from safety.patterns.scanner import PatternScanner, joined
from safety.pii import kinds as pii
from safety.redaction import redact
from safety.secrets import kinds as secrets

PIECE = 64  # characters that are scanned at a time: about 0.2 ms


@dataclass(frozen=True, slots=True)
class Redacted:
    """The redacted ``text``, the ``kinds`` of what was replaced, in order, and whether the text goes on (``cut``)."""

    text: str
    kinds: tuple[str, ...]
    cut: bool


@cache
def all_recognisers() -> tuple[Recogniser, ...]:
    """Returns the recognisers of all kinds of personal data and secrets."""
    return *pii.recognisers_of(pii.KINDS), *secrets.recognisers_of(secrets.KINDS)


@cache
def lookahead() -> int:
    """Returns the number of characters beyond the end of a head that have to be read, so that a value that begins in
    the head is recognised, and one that overlaps with it too."""
    return 2 * max(recogniser.max_length for recogniser in all_recognisers())


def redacted_head(text: str, length: int, rest: Callable[[], None] = lambda: None) -> Redacted:
    """Returns the first ``length`` characters of ``text`` with all personal data and secrets replaced by their kinds,
    as ``python -m safety redact`` does. A value that crosses the end is replaced as a whole.

    ``text`` may be cut off ``lookahead()`` characters behind them. ``rest`` is called between pieces of the work.
    """
    seen = text[: length + lookahead()]
    spans = [span for span in _spans(seen, rest) if span.start < length]
    end = max([min(length, len(seen)), *(span.end for span in spans)])
    return Redacted(redact(seen[:end], spans), tuple(span.kind for span in spans), end < len(text))


def _spans(text: str, rest: Callable[[], None]) -> Sequence[Span]:
    scanner, found = PatternScanner(all_recognisers()), list[Span]()
    for start in range(0, len(text), PIECE):
        found += scanner.push(text[start : start + PIECE], final=start + PIECE >= len(text)).found
        rest()
    return joined(found)
