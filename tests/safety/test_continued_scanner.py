"""A text that goes on where another one ends: what lies across the border is found, however the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.api import Action, Origin, Span
from safety.phrases.automaton import PhraseAutomaton
from safety.phrases.phrase import Phrase
from safety.phrases.scanner import PhraseScanner
from safety.pii.kinds import PiiScanner
from safety.streaming.check_schedule import CheckSchedule
from safety.streaming.continued_scanner import ContinuedScanner
from safety.streaming.moderator import StreamModerator
from safety.streaming.plan import Pace, ScannerRule, StreamPlan
from tests.safety.streams import CUTS, pieces_of

CARD = "4111 1111 1111 1111"
TEXT = f"I paid with {CARD} and told bob@acme.com so."


def released(before: str, pieces: list[str]) -> str:
    rule = ScannerRule("pii", "1", PiiScanner, Action.REDACT)
    moderator = StreamModerator(Origin.ANSWER, StreamPlan((rule,)), lambda: None, before)
    return "".join(moderator.push(piece).text for piece in pieces) + moderator.push("", final=True).text


@given(st.integers(1, len(TEXT) - 1), CUTS)
def test_no_part_of_a_value_is_released_wherever_the_request_ends(at: int, cuts: list[int]) -> None:
    before, after = TEXT[:at], TEXT[at:]
    found = released(before, pieces_of(after, cuts))

    assert found == released(before, [after])
    for value, kind in ((CARD, "<CREDIT_CARD>"), ("bob@acme.com", "<EMAIL_ADDRESS>")):
        start = TEXT.index(value)
        if start < at < start + len(value):
            assert found.startswith(kind)
            assert found[len(kind)] == TEXT[start + len(value)]
        elif at <= start:
            assert kind in found
            assert value not in found


def test_a_word_begins_at_the_beginning_of_the_text_too() -> None:
    automaton = PhraseAutomaton([Phrase("bomb")])
    scanner = ContinuedScanner(lambda: PhraseScanner(automaton), "x")

    assert [(span.start, span.end) for span in scanner.push("bomb", final=True).found] == [(0, 4)]


@pytest.mark.parametrize("before", ["bob@acme.com", "bob@acme.com "])
def test_what_the_request_has_alone_is_not_found_again(before: str) -> None:
    assert not ContinuedScanner(PiiScanner, before).push(", he said.", final=True).found


def test_nothing_is_held_for_a_request_that_begins_nothing() -> None:
    assert ContinuedScanner(PiiScanner, "Once upon a time, ").push("there, and ").settled >= 6


def test_the_classifier_reads_the_end_of_the_request_as_context() -> None:
    schedule = CheckSchedule(Pace(), "How to make a ")
    schedule.push("bomb", 0.0, final=True)
    due = schedule.begin(0.0)

    assert due is not None
    assert (due.text, due.end) == ("How to make a bomb", 4)
    schedule.finish(due, 0.0)
    assert schedule.complete


def test_a_span_across_the_border_begins_with_the_text() -> None:
    found = ContinuedScanner(PiiScanner, "mail bob@ac").push("me.com now", final=True).found

    assert found == (Span(0, 6, "EMAIL_ADDRESS"),)
