"""Which passages an answer cites, and by which characters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.documents import CitedBy, ContextPassage, RetrievedContext, Source
from router.retrieval.citations import citations

LAKE = "The lake is 240 metres deep. It freezes in January. Fishing needs a licence."
TOWER = "The tower was built in 1889. It is made of iron."
PASSAGES = (
    ContextPassage(1, Source("documents[0]", "lake"), 1000, 1000 + len(LAKE), LAKE),
    ContextPassage(2, Source("documents[1]", "tower"), 0, len(TOWER), TOWER),
)


def cited(answer: str) -> list[tuple[str, str, str]]:
    """What is cited: the characters of the answer, the document, and the characters of the passage."""
    texts = {1: LAKE, 2: TOWER}
    return [
        (
            answer[each.start : each.end],
            each.passage.source.document,
            texts[each.passage.number][each.source_start - each.passage.start : each.source_end - each.passage.start],
        )
        for each in citations(answer, PASSAGES)
    ]


def test_a_marker_refers_to_the_sentence_of_its_passage() -> None:
    assert cited("It is 240 metres deep [1]. The tower is of iron.[2]") == [
        ("[1]", "lake", "The lake is 240 metres deep."),
        ("[2]", "tower", "It is made of iron."),
    ]


def test_a_marker_whose_sentence_has_other_words_refers_to_all_of_its_passage() -> None:
    assert cited("Ja, sicher [2]") == [("[2]", "tower", TOWER)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Both [1, 2].", ["lake", "tower"]),
        ("Both [1][2].", ["lake", "tower"]),
        ("Wide 【2】.", ["tower"]),
        ("Again [1] and [1].", ["lake", "lake"]),
        ("[passage 2]", ["tower"]),
        ("Nothing [3].", []),
        ("Nothing [0] [99] [1234].", []),
        ("A link [1](https://example.org).", []),
        ("Code `a[1]` and\n```\nb[2]\n```", []),
        ("An open fence ```\nb[2]", []),
        ("A list [] [x] [1 2].", []),
        ("", []),
    ],
)
def test_markers(answer: str, expected: list[str]) -> None:
    assert [document for _, document, _ in cited(answer)] == expected


def test_without_a_marker_a_sentence_with_the_same_words_is_cited_and_says_how() -> None:
    answer = "Hello! The tower was built in 1889. I like it."

    (found,) = citations(answer, PASSAGES)

    assert answer[found.start : found.end] == "The tower was built in 1889."
    assert (found.by, found.passage.number, found.score) == (CitedBy.OVERLAP, 2, 1.0)
    assert TOWER[found.source_start : found.source_end] == "The tower was built in 1889."


@pytest.mark.parametrize(
    "answer",
    [
        "The tower was built in 1890.",  # another number
        "The tower was built.",  # too few words
        "Whales eat krill in cold northern seas.",
        "The lake is deep and full of trout, eels, pikes, carps and old boats.",
    ],
)
def test_what_no_passage_says_is_not_cited(answer: str) -> None:
    assert citations(answer, PASSAGES) == []


def test_markers_alone_count_where_there_are_any() -> None:
    assert [each.by for each in citations("See [1]. The tower was built in 1889.", PASSAGES)] == [CitedBy.MARKER]


def test_a_wrong_number_does_not_hide_what_the_words_show() -> None:
    (found,) = citations("The tower was built in 1889 [7].", PASSAGES)

    assert (found.by, found.passage.number) == (CitedBy.OVERLAP, 2)


def test_a_passage_that_the_guard_has_dropped_is_not_cited() -> None:
    context = RetrievedContext(PASSAGES).with_shown([("", "[Removed]"), ("", TOWER)])

    assert "lake" not in context.text
    assert [each.passage.number for each in citations("As said [1] [2].", context.passages)] == [2]


def test_a_passage_with_one_redacted_word_is_still_cited() -> None:
    redacted = replace(PASSAGES[0], shown=LAKE.replace("240", "<NUMBER>"))

    assert len(citations("Deep [1].", [redacted])) == 1


def test_an_answer_of_markers_is_bounded() -> None:
    assert len(citations("[1] " * 5000, PASSAGES)) == 256
