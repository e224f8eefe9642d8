"""A passage with some of its words written plainly, for the classifier, which needs what is around them too. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from safety.structure.decoded import Decoded, Encoding

MAX_CONTEXT = 2000
"""Characters before and after the changed words."""


def with_context(text: str, changes: Mapping[tuple[int, int], str], encoding: Encoding) -> Decoded:
    """Returns the passage, from MAX_CONTEXT before the first change to as much after the last, with the ranges of
    ``changes``, which are sorted, replaced."""
    spans = list(changes)
    start, end = spans[0][0], spans[-1][1]
    parts, position = [], max(0, start - MAX_CONTEXT)
    for (first, last), plain in changes.items():
        parts += [text[position:first], plain]
        position = last
    parts.append(text[position : end + MAX_CONTEXT])
    return Decoded("".join(parts), start, end, (encoding,))
