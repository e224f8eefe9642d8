"""``decoded``: finds the texts that are encoded in a passage, so that they can be classified as well. Pure.

Cost: a few linear passes, about 2 µs per character; of one passage at most MAX_CHARACTERS are read, a slice at a time.
A regular expression holds the interpreter's lock until its end, so that a search of a megabyte would stall all threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from safety.structure.blobs import decode_blobs
from safety.structure.ciphers import decode_ciphers
from safety.structure.decoded import BYTES, HIDDEN, Decoded
from safety.structure.hidden import decode_hidden
from safety.structure.readable import is_readable

MAX_DEPTH = 2
MAX_PARTS = 32
"""The texts of a passage: half of them at most are hidden ones. Further ones are joined, so that many harmless texts
keep no other from being read."""
MAX_CHARACTERS = 1 << 20
MAX_DECODED = 1 << 18
"""Characters of all decoded texts of a passage."""
MAX_GROWTH = 5
"""As many times the characters of the passage itself are decoded at most. Each disguise gives its whole text again: two
give four texts, alone and in one another, and more would take the classifier many times as long as the passage."""
SLICE, OVERLAP = 1 << 15, 1 << 12
"""Characters of a slice, and how many of them the next one has too. A longer run that a border cuts is two."""
MAX_FOUND = 4096
"""The encoded texts of one kind in a slice: the shortest has eight characters."""
GAP = "\n\n"
"""Between joined texts: a line break alone may go on with a payload in base64."""


def decoded(text: str) -> list[Decoded]:
    """Returns the texts that are encoded in ``text``, in order of their offsets: at most MAX_PARTS, with at most
    MAX_DECODED characters, and MAX_GROWTH times those of ``text``.

    Texts that are encoded in a decoded text are decoded too, down to MAX_DEPTH; they have the offsets of the outermost
    one.
    """
    found: dict[tuple[str, int], Decoded] = {}
    for start in range(0, max(1, min(len(text), MAX_CHARACTERS) - OVERLAP), SLICE - OVERLAP):
        for part in _decoded(text[start : min(start + SLICE, MAX_CHARACTERS)]):
            moved = replace(part, start=part.start + start, end=part.end + start)
            found[moved.text, moved.start] = moved
    return _ordered(_bounded(_joined(found.values()), _most(text)))


def is_full(text: str, parts: Iterable[Decoded]) -> bool:
    """Returns whether ``text`` may have more encoded texts than ``parts``, which ``decoded`` has found in it."""
    return sum(len(part.text) for part in parts) >= _most(text)


def _most(text: str) -> int:
    return min(MAX_DECODED, MAX_GROWTH * len(text))


def _decoded(text: str) -> list[Decoded]:
    """Returns the texts that a slice carries."""
    parts = _decode(text)
    inner = [
        replace(deeper, start=part.start, end=part.end, encodings=part.encodings + deeper.encodings)
        for part in _joined(parts)
        for deeper in _decode(part.text)
        if deeper.encodings != part.encodings or deeper.text != part.text
    ]
    return _joined(part for part in inner + parts if _is_text(part))


def _decode(text: str) -> list[Decoded]:
    kinds = decode_blobs(text), decode_hidden(text), decode_ciphers(text)
    return [part for kind in kinds for part in islice(kind, MAX_FOUND)]


def _is_text(part: Decoded) -> bool:
    """Whether it is more than a step on the way to a text that is encoded twice."""
    return part.encodings[-1] not in BYTES or is_readable(part.text)


def _joined(parts: Iterable[Decoded]) -> list[Decoded]:
    """Returns at most MAX_PARTS parts: first those that a reader cannot see, which have places of their own."""
    ordered = _ordered(parts)
    hidden = [part for part in ordered if part.encodings[0] in HIDDEN]
    others = [part for part in ordered if part.encodings[0] not in HIDDEN]
    kept = _at_most(MAX_PARTS // 2, hidden)
    return kept + _at_most(MAX_PARTS - len(kept), others)


def _ordered(parts: Iterable[Decoded]) -> list[Decoded]:
    return sorted(parts, key=lambda part: (part.start, len(part.encodings)))


def _at_most(count: int, parts: Sequence[Decoded]) -> list[Decoded]:
    """Returns ``parts``, the last of which are joined into one if there are more than ``count``."""
    if len(parts) <= count:
        return list(parts)
    rest = parts[count - 1 :]
    end = max(part.end for part in rest)
    return [*parts[: count - 1], replace(rest[0], text=GAP.join(part.text for part in rest), end=end)]


def _bounded(parts: Sequence[Decoded], most: int) -> list[Decoded]:
    kept, size = [], 0
    for part in parts:
        if size >= most:
            break
        kept.append(replace(part, text=part.text[: most - size]))
        size += len(part.text)
    return kept
