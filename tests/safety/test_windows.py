"""The window of a text: what is held, what is replaced, and that neither depends on how the text is cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.api import Action, Origin, Span
from safety.streaming.moderator import StreamModerator
from safety.streaming.plan import ScannerRule, StreamPlan
from safety.streaming.window import Window
from tests.safety.scripted import needles
from tests.safety.streams import pieces_of

SECRET, PHRASE = "abcab", "bad"
ALPHABET = "abcd "


def moderated(pieces: list[str], *rules: ScannerRule) -> tuple[list[str], StreamModerator]:
    """What is sent for each piece, and at the end."""
    moderator = StreamModerator(Origin.ANSWER, StreamPlan(rules), lambda: None)
    sent = [moderator.push(piece).text for piece in pieces]
    return [*sent, moderator.push("", final=True).text], moderator


@given(st.text(ALPHABET, max_size=60), st.lists(st.integers(0, 60), max_size=20))
def test_redacted_text_is_the_same_however_it_is_cut(text: str, cuts: list[int]) -> None:
    sent, _ = moderated(pieces_of(text, cuts), needles(Action.REDACT, SECRET, kind="KEY"))

    assert "".join(sent) == re.sub(SECRET, "<KEY>", text)


@given(st.text(ALPHABET, max_size=60), st.lists(st.integers(0, 60), max_size=20))
def test_spans_that_overlap_are_the_same_however_they_are_cut(text: str, cuts: list[int]) -> None:
    rules = needles(Action.REDACT, SECRET, kind="KEY"), needles(Action.REDACT, "cabc", "ba", kind="OTHER")

    sent, _ = moderated(pieces_of(text, cuts), *rules)
    whole, _ = moderated([text], *rules)

    assert "".join(sent) == "".join(whole)


@given(st.text(ALPHABET, max_size=60), st.lists(st.integers(0, 60), max_size=20))
def test_nothing_is_sent_that_a_blocked_phrase_begins_with(text: str, cuts: list[int]) -> None:
    sent, moderator = moderated(pieces_of(text, cuts), needles(Action.BLOCK, PHRASE), needles(Action.REDACT, SECRET))

    joined, place = "".join(sent), text.find(PHRASE)
    before = re.sub(SECRET, "<NEEDLE>", text if place < 0 else text[:place])
    assert joined == before if place < 0 else before.startswith(joined)
    assert (moderator.push("").halt is not None) == (place >= 0)


@given(st.text(ALPHABET, max_size=60), st.lists(st.integers(0, 60), max_size=20))
def test_no_more_is_held_than_may_still_become_a_match(text: str, cuts: list[int]) -> None:
    moderator = StreamModerator(Origin.ANSWER, StreamPlan((needles(Action.REDACT, SECRET),)), lambda: None)

    for piece in pieces_of(text, cuts):
        moderator.push(piece)
        assert moderator.held < len(SECRET)


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (Span(2, 5, "A"), Span(4, 8, "B"), "01<A>89"),
        (Span(4, 8, "B"), Span(2, 5, "A"), "01<B>89"),
        (Span(2, 5, "A"), Span(5, 8, "B"), "01<A><B>89"),
        (Span(0, 10, "A"), Span(5, 8, "B"), "<A>"),
        (Span(2, 5, "A", ""), Span(7, 8, "B", "x"), "0156x89"),
    ],
    ids=["overlap", "rank", "neighbours", "inside", "replacements"],
)
def test_replacements_of_overlapping_spans(first: Span, second: Span, text: str) -> None:
    window = Window()
    window.push("0123456789")
    window.replace([first], 0)
    window.replace([second], 1)

    assert window.release(10)[0] == text


def test_a_replaced_span_is_sent_as_a_whole() -> None:
    window = Window()
    window.push("0123456789")
    window.replace([Span(2, 5, "A")], 0)

    assert window.release(4) == ("01", ())
    assert window.release(5) == ("<A>", (Span(2, 5, "A", "<A>"),))
    assert window.sent == 5
