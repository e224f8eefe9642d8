"""Which verdicts on the results of a search drop a result, and which refuse the search."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from safety.api import TOO_MUCH_ENCODED, Action, Origin, Passage, Span, TextUse, Verdict
from safety.dropped_passages import with_dropped
from safety.policy import PolicyConfig
from safety.quoting import DROPPED, closing_mark, opening_mark
from safety.rule import rule
from tests.safety.guards import ACME, People, guard_of

TEXTS = ("fine", "see a@b.example")
PASSAGES = [Passage(text, Origin.DOCUMENT, f"data[{place}].text") for place, text in enumerate(TEXTS)]
SIZE = len(TEXTS[1])


def verdict(action: Action, **more: Any) -> Verdict:
    return Verdict("check", "1", action, "kind", passage=1, **more)


MARKS = (Span(0, 0, "QUOTE", opening_mark(TEXTS[1])), Span(SIZE, SIZE, "QUOTE", closing_mark(TEXTS[1])))


@pytest.mark.parametrize(
    ("found", "review", "dropped"),
    [
        (verdict(Action.BLOCK, spans=(Span(4, 15, "EMAIL_ADDRESS"),)), "refuse", True),
        (verdict(Action.BLOCK), "refuse", True),
        (verdict(Action.BLOCK, error=TOO_MUCH_ENCODED), "refuse", True),
        (verdict(Action.REVIEW), "queue", True),
        (verdict(Action.REVIEW), "pass", False),
        (verdict(Action.REDACT, spans=(Span(0, SIZE, "INJECTION", DROPPED),)), "refuse", True),
        (verdict(Action.REDACT, spans=MARKS), "refuse", False),
        (verdict(Action.REDACT, spans=(Span(0, SIZE, "EMAIL_ADDRESS"),)), "refuse", False),
        (verdict(Action.ALLOW), "refuse", False),
        (verdict(Action.ALLOW, error="timeout"), "refuse", False),
    ],
)
def test_a_verdict_that_would_refuse_a_request_drops_its_result(found: Verdict, review: str, dropped: bool) -> None:
    policy = PolicyConfig.model_validate({"review": {"action": review}})

    verdicts, places = with_dropped(policy, PASSAGES, [found])
    ruling = rule(policy, PASSAGES, verdicts)

    assert places == ({1} if dropped else frozenset())
    assert not ruling.refused
    assert ruling.texts[0] == TEXTS[0]
    assert not dropped or (ruling.texts[1] in ("", DROPPED) and ruling.label == "redacted")


def test_a_check_that_failed_refuses_the_search() -> None:
    policy = PolicyConfig()

    verdicts, places = with_dropped(policy, PASSAGES, [verdict(Action.BLOCK, error="timeout"), verdict(Action.BLOCK)])

    assert places == {1}
    assert rule(policy, PASSAGES, verdicts).unavailable


def test_the_audit_log_and_the_verdicts_say_what_was_dropped() -> None:
    people = People()
    guard = guard_of({"pii": {"answers": "block"}}, oversight=people)

    ruling = asyncio.run(guard.inspect(ACME, PASSAGES, use=TextUse.RESULT))

    assert (ruling.dropped, ruling.texts, ruling.label) == (frozenset({1}), ("fine", ""), "redacted")
    assert [(each.action, each.category, each.passage) for each in ruling.verdicts] == [(Action.REDACT, "pii", 1)]
    assert [(each.check, each.outcome) for each in people.records] == [("pii", "redacted")]


def test_a_result_that_a_reviewer_has_approved_is_found() -> None:
    people = People()
    people.approved.add("in DOUBT")
    policy = {"retrieval": {"content": True}, "content_answers": {"block": 0.9, "review": 0.6}}
    passages = [Passage(text, Origin.DOCUMENT, "data[0].text") for text in ("in DOUBT", "DOUBT, in")]

    ruling = asyncio.run(guard_of(policy, oversight=people).inspect(ACME, passages, use=TextUse.RESULT))

    assert ruling.dropped == {1}
