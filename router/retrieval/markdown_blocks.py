"""The blocks of a text: headings, fenced code and paragraphs, as CommonMark tells them apart. Pure.

Only the syntax that decides where a chunk may begin or end is parsed: ATX and setext headings, and code fences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

FENCE = re.compile(r" {0,3}(`{3,}+(?![^\n]*`)|~{3,})")  # behind backticks the line has none (CommonMark, 4.5)
HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(\S.*)")
UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
MAX_TITLE = 120  # characters of a heading that are kept


class BlockKind(Enum):
    HEADING = auto()
    CODE = auto()
    TEXT = auto()


class Block(NamedTuple):
    """The characters ``[start, end)`` of a text. ``level`` (1 to 6) and ``title`` are set for a heading."""

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    title: str = ""


def blocks(text: str) -> list[Block]:
    """Returns the blocks of ``text`` in order; together they are the whole text, but for the white space between."""
    found: list[Block] = []
    begin = 0  # of the text that is no block yet
    lines = list(_lines(text))
    place = 0
    while place < len(lines):
        start, end = lines[place]
        line = text[start:end]
        if (fence := FENCE.match(line)) is not None:
            last = _closing(text, lines, place, fence[1])
            code = Block(BlockKind.CODE, start, lines[last][1])
            found += [*_paragraph(text, begin, start), code]
            begin, place = code.end, last + 1
            continue
        heading = _heading(text, lines, place)
        if heading is not None:
            found += [*_paragraph(text, begin, start), heading]
            begin = heading.end
            place += 2 if heading.end > end else 1
            continue
        place += 1
    return [*found, *_paragraph(text, begin, len(text))]


def _lines(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for line in text.split("\n"):
        yield start, start + len(line)
        start += len(line) + 1


def _closing(text: str, lines: list[tuple[int, int]], opening: int, mark: str) -> int:
    """Returns the line that closes the fence at the line ``opening``; the last line if none does."""
    closing = re.compile(rf" {{0,3}}{re.escape(mark[0])}{{{len(mark)},}}[ \t]*\r?")
    for place in range(opening + 1, len(lines)):
        if closing.fullmatch(text, *lines[place]):
            return place
    return len(lines) - 1


def _heading(text: str, lines: list[tuple[int, int]], place: int) -> Block | None:
    start, end = lines[place]
    line = text[start:end]
    if (match := HEADING.match(line)) is not None:
        return Block(BlockKind.HEADING, start, end, len(match[1]), match[2].strip(" \t\r#")[:MAX_TITLE])
    alone = place == 0 or not text[slice(*lines[place - 1])].strip()
    if alone and line.strip() and len(line) <= MAX_TITLE and place + 1 < len(lines):
        below = UNDERLINE.match(text[slice(*lines[place + 1])].rstrip("\r"))
        if below is not None and not line.lstrip().startswith(("-", "*", ">", "|")):
            level = 1 if below[1].startswith("=") else 2
            return Block(BlockKind.HEADING, start, lines[place + 1][1], level, line.strip())
    return None


def _paragraph(text: str, start: int, end: int) -> list[Block]:
    return [Block(BlockKind.TEXT, start, end)] if text[start:end].strip() else []
