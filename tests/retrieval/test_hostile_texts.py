"""Texts that a client may send to hold up a router: none takes time in the square of its length."""

from __future__ import annotations

import time

import pytest

from router.documents import ContextPassage, Source
from router.prompts.text_segments import segments_of
from router.retrieval.chunking import chunks
from router.retrieval.citations import MAX_CITATIONS, citations
from router.retrieval.markdown_blocks import BlockKind, blocks
from router.retrieval.sentence_splitting import sentences

MAX_S = 3.0  # of the processor; what follows takes a tenth of it, and took minutes
HOSTILE = {
    "full stops": "." * 200_000 + "x",
    "other marks": "!?…" * 70_000 + "x",
    "quotes after a full stop": '."' * 100_000,
    "one sentence without spaces": "中" * 1_000_000,
    "one word": "a" * 1_000_000,
    "white space": "a" + " \t" * 300_000 + "b",
    "empty lines": "a\n \n" * 100_000,
    "backticks": "`" * 300_000 + "x`",
    "fences that do not close": "````\n```\n" * 50_000,
    "items": "\n- " * 200_000,
    "headings": "# a\n" * 50_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_takes_long_to_be_cut_into_chunks_or_segments(name: str) -> None:
    text, began = HOSTILE[name], time.process_time()

    found = chunks(text, 256, 48)
    segments = segments_of(text)

    assert time.process_time() - began < MAX_S
    assert len(text.rstrip()) <= found[-1].end <= len(text)
    assert "".join(segment.text for segment in segments) == text


def test_a_run_of_marks_is_one_end_of_a_sentence() -> None:
    text = 'Really?!... "Yes..." No.more. End...'

    assert [text[start:end] for start, end in sentences(text)] == ["Really?!...", '"Yes..."', "No.more.", "End..."]


@pytest.mark.parametrize(("marker", "count"), [("[1] ", MAX_CITATIONS), ("[7] ", 0), ("`[1]` ", 0)])
def test_thousands_of_markers_are_not_all_looked_at(marker: str, count: int) -> None:
    text = "The harbour is north of the town, and has two piers. " * 60
    passage = ContextPassage(1, Source("documents[0]", "d"), 0, len(text), text)
    began = time.process_time()

    found = citations("The harbour is north. " + marker * 20_000, [passage])

    assert len(found) == count
    assert time.process_time() - began < MAX_S


def test_backticks_within_a_line_open_no_code() -> None:
    """CommonMark, 4.5: what stands behind the backticks of a fence has none. The rest of the text was one block."""
    text = "```make serve``` starts it.\n\n# Next\n\nWords."

    kinds = [BlockKind.TEXT, BlockKind.HEADING, BlockKind.TEXT]
    assert [block.kind for block in blocks(text)] == kinds
    pieces = ["```make serve``` starts it.", "# Next", "Words."]
    assert [segment.text.strip() for segment in segments_of(text)] == pieces
