"""Makes the text for the classifier from a passage in which some words were decoded: these words with their context.
Pure."""

from __future__ import annotations

from collections.abc import Mapping

from safety.structure.decoded import Decoded, Encoding

MAX_CONTEXT = 2000
"""Characters before and after the changed words."""


def with_context(text: str, changes: Mapping[tuple[int, int], str], encoding: Encoding) -> Decoded:
    """Returns the passage with the ranges in ``changes``, which are sorted, replaced. It begins MAX_CONTEXT characters
    before the first change and ends MAX_CONTEXT characters after the last."""
    spans = list(changes)
    start, end = spans[0][0], spans[-1][1]
    parts, position = [], max(0, start - MAX_CONTEXT)
    for (first, last), plain in changes.items():
        parts += [text[position:first], plain]
        position = last
    parts.append(text[position : end + MAX_CONTEXT])
    return Decoded("".join(parts), start, end, (encoding,))
