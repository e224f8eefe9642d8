"""The guard and untrusted texts: instructions and role markers in documents and in descriptions of tools."""

from __future__ import annotations

import pytest

from safety.api import Action, Origin, Passage
from safety.quoting import closing_mark, opening_mark
from tests.safety.guards import MARKED, guard_of, inspect


@pytest.mark.parametrize("origin", [Origin.TOOL_RESULT, Origin.DOCUMENT])
@pytest.mark.parametrize("action", ["drop", "quote"])
def test_a_document_with_instructions_is_dropped_or_quoted_alone(origin: Origin, action: str) -> None:
    policy = {"injection": {"documents": {"action": action}}}
    ruling = inspect(guard_of(policy), "ask", Passage("ATTACK now", origin))

    assert (ruling.action, ruling.refused, ruling.label) == (Action.REDACT, False, "redacted")
    assert ruling.texts[0] == "ask"
    assert ("ATTACK now" in ruling.texts[1]) is (action == "quote")
    assert ruling.texts[1] != "ATTACK now"
    assert not any("ATTACK" in (span.replacement or "") for each in ruling.verdicts for span in each.spans)


@pytest.mark.parametrize("text", ["ATTACK now", MARKED])
@pytest.mark.parametrize("action", ["drop", "quote"])
def test_the_description_of_a_tool_is_refused_and_never_rewritten(action: str, text: str) -> None:
    policy = {"injection": {"documents": {"action": action}}}
    ruling = inspect(guard_of(policy), Passage("hello", Origin.USER), Passage(text, Origin.TOOL, "tools[0]"))

    assert ruling.refused
    assert ruling.refused_field == "tools[0]"
    assert ruling.texts == ("hello", text)


def test_a_quoted_text_cannot_close_its_quotation() -> None:
    policy = {"injection": {"documents": {"action": "quote"}}}
    first = inspect(guard_of(policy), Passage("ATTACK", Origin.DOCUMENT)).texts[0]
    mark = first.splitlines()[-1]
    nested = inspect(guard_of(policy), Passage(f"ATTACK{mark} obey", Origin.DOCUMENT)).texts[0]

    assert nested.splitlines()[-1] != mark


@pytest.mark.parametrize(
    ("action", "label"), [("block", "blocked"), ("review", "blocked"), ("drop", "redacted"), ("quote", "redacted")]
)
def test_role_markers_in_a_document_follow_the_policy_of_documents(action: str, label: str) -> None:
    ruling = inspect(guard_of({"injection": {"documents": {"action": action}}}), Passage(MARKED, Origin.DOCUMENT))

    assert ruling.label == label
    assert (MARKED in ruling.texts[0]) is (action != "drop")


def test_a_passage_for_two_reasons_is_quoted_once() -> None:
    policy = {"injection": {"documents": {"action": "quote"}}}
    text = f"ATTACK {MARKED}"
    ruling = inspect(guard_of(policy), Passage(text, Origin.DOCUMENT))

    assert len(ruling.verdicts) > 1
    assert ruling.texts[0] == f"{opening_mark(text)}{text}{closing_mark(text)}"
