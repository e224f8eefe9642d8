"""``decoded``: finds the texts that are encoded in a passage, so that they can be classified as well. Pure.

Cost: a few linear passes, about 2 µs per character; of one passage at most MAX_CHARACTERS are read, a slice at a time.
A regular expression holds the interpreter's lock until its end, so that a search of a megabyte would stall all threads.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, islice

from safety.structure.blobs import decode_blobs
from safety.structure.ciphers import decode_ciphers
from safety.structure.decoded import BYTES, Decoded
from safety.structure.hidden import decode_hidden
from safety.structure.readable import is_readable

MAX_DEPTH = 2
MAX_PARTS = 32
MAX_CHARACTERS = 1 << 20
MAX_DECODED = 1 << 18
"""Characters of all decoded texts of a passage."""
SLICE, OVERLAP = 1 << 15, 1 << 12
"""Characters of a slice, and how many of them the next one has too. A longer run that a border cuts is two."""


def decoded(text: str) -> list[Decoded]:
    """Returns the texts that are encoded in ``text``, in order of their offsets: at most MAX_PARTS, with at most
    MAX_DECODED characters.

    Texts that are encoded in a decoded text are decoded too, down to MAX_DEPTH; they have the offsets of the outermost
    one.
    """
    found: dict[tuple[str, int], Decoded] = {}
    for start in range(0, max(1, min(len(text), MAX_CHARACTERS) - OVERLAP), SLICE - OVERLAP):
        for part in _decoded(text[start : min(start + SLICE, MAX_CHARACTERS)]):
            moved = replace(part, start=part.start + start, end=part.end + start)
            found[moved.text, moved.start] = moved
        if len(found) > 2 * MAX_PARTS:
            break
    return _bounded(sorted(found.values(), key=lambda part: (part.start, len(part.encodings))))


def _decoded(text: str) -> list[Decoded]:
    """Returns the texts that a slice carries."""
    parts = _decode(text)
    inner = [
        replace(deeper, start=part.start, end=part.end, encodings=part.encodings + deeper.encodings)
        for part in parts
        for deeper in _decode(part.text)
        if deeper.encodings != part.encodings or deeper.text != part.text
    ]
    return [part for part in inner + parts if _is_text(part)]


def _decode(text: str) -> list[Decoded]:
    parts = chain(decode_blobs(text), decode_hidden(text), decode_ciphers(text))
    return list(islice(parts, 2 * MAX_PARTS))


def _is_text(part: Decoded) -> bool:
    """Whether it is more than a step on the way to a text that is encoded twice."""
    return part.encodings[-1] not in BYTES or is_readable(part.text)


def _bounded(parts: list[Decoded]) -> list[Decoded]:
    kept, size = [], 0
    for part in parts[:MAX_PARTS]:
        if size >= MAX_DECODED:
            break
        kept.append(replace(part, text=part.text[: MAX_DECODED - size]))
        size += len(part.text)
    return kept
