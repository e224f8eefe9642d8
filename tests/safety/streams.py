"""What every StreamScanner promises, as one function for their tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from safety.api import Span, StreamScanner


def assert_scans_in_pieces(make: Callable[[], StreamScanner], pieces: Sequence[str], max_hold: int) -> tuple[Span, ...]:
    """Scans the pieces, and the text whole. Returns the spans.

    Fails unless both find the same; unless no character of a span was settled before the span was reported; unless
    ``settled`` only grows and is at most ``max_hold`` behind; unless spans are sorted and do not overlap.
    """
    text = "".join(pieces)
    whole = make().push(text, final=True)
    scanner, found, settled, length = make(), list[Span](), 0, 0
    for index, piece in enumerate([*pieces, ""]):
        length += len(piece)
        scan = scanner.push(piece, final=index == len(pieces))
        assert all(span.start >= settled for span in scan.found), "a span was settled before it was reported"
        assert settled <= scan.settled <= length
        assert length - scan.settled <= max_hold
        settled = scan.settled
        found += scan.found
    assert tuple(found) == whole.found
    assert settled == whole.settled == len(text)
    assert all(span.start < span.end <= len(text) for span in found)
    assert all(left.end <= right.start for left, right in itertools.pairwise(found))
    return whole.found


def pieces_of(text: str, cuts: Sequence[int]) -> list[str]:
    """The text, cut at these offsets."""
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(borders)]


CUTS = st.lists(st.integers(0, 80), max_size=12)
