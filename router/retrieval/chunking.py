"""``chunks``: cuts a text into chunks of whole sentences, which overlap by some. Pure.

A section begins a new chunk, unless the chunk before it is still short. Fenced code is not torn, up to MAX_CODE_TOKENS.
Each chunk is a slice of the text: nothing is copied into it, so its offsets are those of the original.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from router.retrieval.markdown_blocks import Block, BlockKind, blocks
from router.retrieval.sentence_splitting import sentences, stripped
from router.retrieval.token_estimate import BYTES_PER_TOKEN, estimated_tokens

MAX_CODE_TOKENS = 1024  # of fenced code that stays whole; longer code is cut between lines
MIN_SECTION = 0.25  # the share of a chunk's size from which on a heading begins a new chunk
NO_SPACE = re.compile(r"\S")


class Chunk(NamedTuple):
    """The characters ``[start, end)`` of a text. ``heading`` has the titles of the sections in which the chunk begins,
    from the outermost to the innermost."""

    start: int
    end: int
    heading: str = ""


class _Unit(NamedTuple):
    """What is never cut: a sentence, a heading or a piece of code."""

    start: int
    end: int
    tokens: int
    heading: str
    opens: bool = False  # whether it is a heading


def chunks(text: str, size_tokens: int, overlap_tokens: int) -> list[Chunk]:
    """Returns the chunks of ``text``, in order, each of about ``size_tokens`` at most.

    Within a section, a chunk repeats the last sentences of the chunk before it, ``overlap_tokens`` at most. Tokens are
    estimated. Raises ValueError unless 0 <= ``overlap_tokens`` < ``size_tokens``.
    """
    if not 0 <= overlap_tokens < size_tokens:
        raise ValueError("the overlap must be smaller than the size")
    found: list[Chunk] = []
    current: list[_Unit] = []
    filled, fresh = 0, 0  # tokens of the current chunk, and units of it that no chunk before it has
    for unit in _units(text, size_tokens):
        section = unit.opens and filled >= MIN_SECTION * size_tokens
        if current and (section or filled + unit.tokens > size_tokens):
            if fresh:
                found.append(_chunk(current))
            current = [] if section or unit.opens else _tail(current, overlap_tokens, size_tokens - unit.tokens)
            filled, fresh = sum(each.tokens for each in current), 0
        current.append(unit)
        filled, fresh = filled + unit.tokens, fresh + 1
    if fresh:
        found.append(_chunk(current))
    return found


def _chunk(units: list[_Unit]) -> Chunk:
    return Chunk(units[0].start, units[-1].end, units[0].heading)


def _tail(units: list[_Unit], overlap: int, room: int) -> list[_Unit]:
    """Returns the last of ``units`` that have ``overlap`` tokens at most, and leave the room that the next one needs.
    The first unit is not among them, so that each chunk goes on."""
    kept, tokens = len(units), 0
    while kept > 1 and tokens + units[kept - 1].tokens <= min(overlap, room) and not units[kept - 1].opens:
        kept -= 1
        tokens += units[kept].tokens
    return units[kept:]


def _units(text: str, size_tokens: int) -> Iterator[_Unit]:
    path: list[Block] = []
    for block in blocks(text):
        if block.kind is BlockKind.HEADING:
            path = [*(each for each in path if each.level < block.level), block]
        heading = " > ".join(each.title for each in path)
        opens = block.kind is BlockKind.HEADING
        for start, end in _spans(text, block, size_tokens):
            yield _Unit(start, end, estimated_tokens(text[start:end]), heading, opens)


def _spans(text: str, block: Block, size_tokens: int) -> Iterator[tuple[int, int]]:
    if block.kind is BlockKind.CODE:
        yield from _code(text, block, size_tokens)
        return
    spans = [(block.start, block.end)] if block.kind is BlockKind.HEADING else sentences(text, block.start, block.end)
    for start, end in spans:
        yield from _pieces(text, start, end, size_tokens)


def _code(text: str, block: Block, size_tokens: int) -> Iterator[tuple[int, int]]:
    """Yields the block whole, or groups of its lines if it is very long."""
    limit = max(MAX_CODE_TOKENS, size_tokens)
    if estimated_tokens(text[block.start : block.end]) <= limit:
        yield block.start, block.end
        return
    begin = place = block.start
    while place < block.end:
        newline = text.find("\n", place, block.end)
        end = block.end if newline < 0 else newline + 1
        if begin < place and estimated_tokens(text[begin:end]) > limit:
            yield from _pieces(text, begin, place, limit)
            begin = place
        place = end
    yield from _pieces(text, begin, block.end, limit)


def _pieces(text: str, start: int, end: int, size_tokens: int) -> Iterator[tuple[int, int]]:
    """Yields ``[start, end)`` whole, or pieces that end between words where it is longer than a chunk."""
    limit = size_tokens * BYTES_PER_TOKEN
    while start < end:
        # Only so much is looked at as decides: a very long text would be copied once for each of its pieces.
        window = text[start : min(end, start + limit + 1)].encode("utf-8", "surrogatepass")
        if len(window) <= limit:
            yield start, end
            return
        cut = start + max(1, len(window[:limit].decode("utf-8", "ignore")))
        space = max(text.rfind(" ", start, cut), text.rfind("\n", start, cut))
        cut = space if space > start + (cut - start) // 2 else cut
        yield stripped(text, start, cut)
        following = NO_SPACE.search(text, cut, end)
        start = end if following is None else following.start()
