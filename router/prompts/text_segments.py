"""The segments of a text: the units that compression keeps or leaves out. Pure.

A sentence of a paragraph is a segment. A code block, a list, a table and a heading are one each, and so is a text that
is JSON. Joined, the segments are the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

GAP = "[…]"
"""Stands where something was left out."""

MIN_GRAIN = 8  # characters; below it segments stay as they are
FENCE = re.compile(r" {0,3}(`{3,}+(?![^\n]*`)|~{3,})")  # behind backticks the line has none (CommonMark, 4.5)
HEADING = re.compile(r" {0,3}#{1,6}(\s|$)")
ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s+\S")
ROW = re.compile(r"\s*\|")
SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[^\sa-z])|(?<=[。！？])\s*")


class Kind(StrEnum):
    """The kind of a segment."""

    SENTENCE = "sentence"
    CODE = "code"
    LIST = "list"
    TABLE = "table"
    HEADING = "heading"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment, with the white space after it. ``heading`` is the index of the heading above it, None without one."""

    text: str
    kind: Kind
    heading: int | None = None


def segments_of(text: str, grain: int = 0) -> list[Segment]:
    """Returns the segments of ``text``. Those shorter than ``grain`` characters are joined with the next ones, so that
    the number of segments of a long text is bounded."""
    segments = _fine_segments(text)
    return segments if grain <= MIN_GRAIN else _coarse(segments, grain)


def _coarse(segments: Sequence[Segment], grain: int) -> list[Segment]:
    """Returns the segments put together to ``grain`` characters and more each."""
    found: list[Segment] = []
    run: list[Segment] = []
    size = 0
    for segment in segments:
        run.append(segment)
        size += len(segment.text)
        if size >= grain:
            found.append(_one(run))
            run, size = [], 0
    return [*found, _one(run)] if run else found


def _one(run: Sequence[Segment]) -> Segment:
    return Segment("".join(segment.text for segment in run), run[0].kind if len(run) == 1 else Kind.SENTENCE)


def _fine_segments(text: str) -> list[Segment]:
    if _is_json(text):
        return [Segment(text, Kind.JSON)]
    found: list[Segment] = []
    heading: int | None = None
    for kind, block in _blocks(text.splitlines(keepends=True)):
        if kind is Kind.HEADING:
            heading = len(found)
            found.append(Segment(block, kind))
        elif kind is Kind.SENTENCE:
            found += [Segment(each, kind, heading) for each in _sentences(block)]
        else:
            found.append(Segment(block, kind, heading))
    return found


def joined(segments: Sequence[Segment], kept: Collection[int]) -> str:
    """Returns the text of the segments with the indices ``kept``, with GAP in place of each run of other segments. With
    all segments it is the original text."""
    pieces: list[str] = []
    missing = False
    for place, segment in enumerate(segments):
        if place not in kept:
            missing = True
            continue
        if missing:
            pieces.append(_gap(pieces, segment))
            missing = False
        pieces.append(segment.text)
    if missing:
        pieces.append(GAP if not pieces or pieces[-1][-1:].isspace() else f" {GAP}")
    return "".join(pieces)


MAX_GAP = len(GAP) + 2
"""The most characters that a gap takes with the white space around it."""


def _gap(pieces: Sequence[str], segment: Segment) -> str:
    """Returns the gap before ``segment``: on a line of its own before a block."""
    before = "\n" if pieces and not pieces[-1][-1:].isspace() else ""
    return f"{before}{GAP} " if segment.kind is Kind.SENTENCE else f"{before}{GAP}\n"


def _blocks(lines: Sequence[str]) -> list[tuple[Kind, str]]:
    """Returns the blocks of a text in their order. Blank lines belong to the block before them."""
    blocks: list[tuple[Kind, list[str]]] = []
    fence: str | None = None
    for line in lines:
        if fence is not None:
            blocks[-1][1].append(line)
            if (mark := FENCE.match(line)) and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = None
            continue
        if mark := FENCE.match(line):
            fence = mark[1]
            blocks.append((Kind.CODE, [line]))
            continue
        kind = _kind(line)
        if blocks and (not line.strip() or _continues(kind, line, blocks[-1])):
            blocks[-1][1].append(line)
        else:
            blocks.append((kind, [line]))
    return [(kind, "".join(own)) for kind, own in blocks]


def _kind(line: str) -> Kind:
    if HEADING.match(line):
        return Kind.HEADING
    if ITEM.match(line):
        return Kind.LIST
    return Kind.TABLE if ROW.match(line) else Kind.SENTENCE


def _continues(kind: Kind, line: str, block: tuple[Kind, Sequence[str]]) -> bool:
    """Returns whether a line belongs to the block before it."""
    before, lines = block
    blank = not lines[-1].strip()
    if before is Kind.LIST:  # items with blank lines between them are one list, and so are their further paragraphs
        return kind is Kind.LIST or line[:1].isspace() or (kind is Kind.SENTENCE and not blank)
    return kind is before and before in (Kind.SENTENCE, Kind.TABLE) and not blank


def _sentences(block: str) -> list[str]:
    """Returns the sentences of a paragraph, each with the white space behind it."""
    ends = [match.end() for match in SENTENCE_END.finditer(block) if 0 < match.end() < len(block)]
    starts = [0, *ends]
    return [block[start:end] for start, end in zip(starts, [*ends, len(block)], strict=True)]


def _is_json(text: str) -> bool:
    stripped = text.strip()
    if stripped[:1] not in ("{", "["):
        return False
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):
        return False
    return True
