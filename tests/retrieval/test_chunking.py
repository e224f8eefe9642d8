"""Sentences, blocks and chunks: all are slices of the text, and together they are all of it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.retrieval.chunking import chunks
from router.retrieval.markdown_blocks import BlockKind, blocks
from router.retrieval.sentence_splitting import sentences
from router.retrieval.token_estimate import estimated_tokens

FENCE = "```python\nx = 1\n\n# no heading\nprint(x)\n```"
GUIDE = f"""# Guide
Welcome to the guide. It has two parts.

## Install
Run the installer. It takes a minute. Then restart.

{FENCE}

## Remove
Stop it first. Then delete the folder.
"""


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two? Three!", ["One.", "Two?", "Three!"]),
        ("Dr. Smith paid 3.50 dollars. He left.", ["Dr. Smith paid 3.50 dollars.", "He left."]),
        ("J. R. Jones came, e.g. by train. Then he left.", ["J. R. Jones came, e.g. by train.", "Then he left."]),
        ("The U.S. economy grew. It shrank.", ["The U.S. economy grew.", "It shrank."]),
        ('He said "no." She left.', ['He said "no."', "She left."]),
        ("今天很好。明天呢？好！", ["今天很好。", "明天呢？", "好！"]),
        ("Intro:\n- one\n- two\n1. three", ["Intro:", "- one", "- two", "1. three"]),
        ("A title\n\nA text", ["A title", "A text"]),
        ("  \n ", []),
        ("see v1.2.3 of it", ["see v1.2.3 of it"]),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


def test_blocks_are_headings_code_and_text() -> None:
    kinds = [(block.kind, block.title) for block in blocks(GUIDE)]

    assert kinds == [
        (BlockKind.HEADING, "Guide"),
        (BlockKind.TEXT, ""),
        (BlockKind.HEADING, "Install"),
        (BlockKind.TEXT, ""),
        (BlockKind.CODE, ""),
        (BlockKind.HEADING, "Remove"),
        (BlockKind.TEXT, ""),
    ]


def test_an_underlined_line_is_a_heading_and_a_rule_is_none() -> None:
    found = [block.title for block in blocks("Title\n=====\ntext\n\n---\n\nmore") if block.kind is BlockKind.HEADING]

    assert found == ["Title"]


def test_an_open_fence_reaches_the_end() -> None:
    (block,) = blocks("~~~\n# code\n```\nstill")

    assert block.kind is BlockKind.CODE


def test_chunks_know_the_headings_above_them() -> None:
    found = chunks(GUIDE, 32, 8)

    assert [chunk.heading for chunk in found][-1] == "Guide > Remove"
    assert GUIDE[found[-1].start : found[-1].end].startswith("## Remove")


@pytest.mark.parametrize("size", [32, 40, 64, 256])
def test_fenced_code_is_whole(size: int) -> None:
    assert sum(FENCE in GUIDE[chunk.start : chunk.end] for chunk in chunks(GUIDE, size, 8)) == 1


def test_very_long_code_is_cut_between_lines() -> None:
    text = "```\n" + "".join(f"line {n} = {n * 7}\n" for n in range(1000)) + "```"

    found = [text[chunk.start : chunk.end] for chunk in chunks(text, 256, 0)]

    assert len(found) > 3
    assert all(piece.rstrip("\n").splitlines()[-1].startswith(("line", "```")) for piece in found)
    assert "".join(found) == text


def test_chunks_of_a_section_overlap_by_whole_sentences() -> None:
    text = " ".join(f"Sentence number {n} is here." for n in range(40))

    found = chunks(text, 64, 16)

    for one, other in pairwise(found):
        shared = text[other.start : one.end]
        assert shared.startswith("Sentence")
        assert shared.endswith("here.")
        assert estimated_tokens(shared) <= 16


def test_one_long_word_is_cut_by_its_length() -> None:
    found = chunks("x" * 3000, 64, 8)

    assert all(estimated_tokens("x" * (chunk.end - chunk.start)) <= 64 for chunk in found)
    assert sum(chunk.end - chunk.start for chunk in found) == 3000


def test_an_overlap_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ValueError):
        chunks("text", 32, 32)


PIECES = st.sampled_from(
    [
        "# Head\n",
        "A word. ",
        "Etwas länger? ",
        "```\ncode. x\n```\n",
        "\n\n",
        "- item\n",
        "漢字。",
        "y" * 200,
        " ",
        "🎉",
    ]
)


@given(st.lists(PIECES, max_size=60).map("".join), st.integers(32, 128), st.integers(0, 31))
def test_every_character_but_white_space_is_in_a_chunk(text: str, size: int, overlap: int) -> None:
    found = chunks(text, size, overlap)

    covered = {place for chunk in found for place in range(chunk.start, chunk.end)}
    assert all(place in covered or character.isspace() for place, character in enumerate(text))
    assert all(chunk.start < chunk.end <= len(text) for chunk in found)
    assert [chunk.start for chunk in found] == sorted({chunk.start for chunk in found})
    assert [chunk.end for chunk in found] == sorted({chunk.end for chunk in found})
