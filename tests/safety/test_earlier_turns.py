"""The guard and earlier turns of a conversation: which are dropped, and what blocks the request all the same."""

from __future__ import annotations

from typing import Any

import pytest

from safety.api import TOO_MUCH_ENCODED, Action, Origin, Passage, ReviewOutcome, Ruling, Verdict
from safety.dropped_turns import MAX_DROPPED_TURNS, dropped_turns
from safety.policy import PolicyConfig
from tests.safety.guards import MARKED, People, guard_of, inspect
from tests.safety.scripted_classifier import ScriptedClassifier

DROP = {"earlier_turns": "drop"}
LAST = Passage("And now?", Origin.USER, "messages[3].content")
KEY = "AKIAIOSFODNN7EXAMPLQ"


def turn(number: int, asked: str, answered: str = "No.") -> list[Passage]:
    """A turn of a question and its answer."""
    return [
        Passage(asked, Origin.USER, f"messages[{number}].content", turn=number),
        Passage(answered, Origin.HISTORY, f"messages[{number}].content", turn=number),
    ]


def assert_dropped(ruling: Ruling, *turns: int) -> None:
    assert ruling.dropped_turns == frozenset(turns)
    assert (ruling.refused, ruling.label) == (False, "redacted")


def test_a_blocked_earlier_turn_is_dropped_whole_and_the_others_stay() -> None:
    ruling = inspect(guard_of(DROP), *turn(1, "Hello", "Good morning"), *turn(2, "HARM, please", "Never"), LAST)

    assert_dropped(ruling, 2)
    assert ruling.dropped == {2, 3}
    assert ruling.texts == ("Hello", "Good morning", "", "", "And now?")
    assert ruling.action is Action.REDACT
    assert [(each.action, each.category, each.passage) for each in ruling.verdicts] == [(Action.REDACT, "violence", 2)]


def test_by_default_an_earlier_turn_blocks_the_request() -> None:
    assert PolicyConfig().earlier_turns == "block"
    ruling = inspect(guard_of(), *turn(1, "HARM"), LAST)

    assert (ruling.label, ruling.refused, ruling.dropped_turns) == ("blocked", True, frozenset())
    assert ruling.refused_field == "messages[1].content"


@pytest.mark.parametrize(
    ("text", "policy", "found"),
    [
        ("HARM", {}, ("classifier", "violence")),
        ("ATTACK", {}, ("classifier", "injection")),
        ("DOUBT", {}, ("classifier", "violence")),  # its review is to refuse
        (MARKED, {"structure": {"block": 0.5, "review": 0.4}}, ("structure", "role_marker")),
        ("the ravenholm plan", {"phrases": {"block": ["ravenholm"]}}, ("phrases", "BLOCKED_PHRASE")),
        ("I am ann@example.com", {"pii": {"requests": "block"}}, ("pii", "pii")),
        (f"aws_access_key_id = {KEY}", {"secrets": {"requests": "block"}}, ("secrets", "secrets")),
        ("Что это за странный и очень длинный вопрос", {"sizes": {"scripts": ["LATIN"]}}, ("sizes", "script")),
    ],
)
@pytest.mark.parametrize("in_answer", [False, True])
def test_whatever_check_blocks_an_earlier_turn_drops_it(
    text: str, policy: dict[str, Any], found: tuple[str, str], in_answer: bool
) -> None:
    earlier = turn(1, "Hello", text) if in_answer else turn(1, text)
    ruling = inspect(guard_of({**DROP, **policy}), *earlier, LAST)

    assert_dropped(ruling, 1)
    assert ruling.texts == ("", "", "And now?")
    assert (ruling.verdicts[0].check, ruling.verdicts[0].category) == found


@pytest.mark.parametrize(
    "others",
    [
        [Passage("HARM", Origin.USER, "messages[3].content")],
        [Passage("HARM", Origin.SYSTEM, "messages[0].content"), LAST],
        [LAST, Passage("ATTACK", Origin.TOOL_RESULT, "messages[5].content")],
        [LAST, Passage("ATTACK", Origin.TOOL, "tools[0]")],
        [Passage("ATTACK", Origin.DOCUMENT, "documents[0]"), LAST],
    ],
    ids=["last", "system", "result of the last turn", "tool", "document"],
)
@pytest.mark.parametrize("earlier", ["HARM", "Hello"])
def test_what_is_in_no_earlier_turn_blocks_the_request(others: list[Passage], earlier: str) -> None:
    policy = {**DROP, "injection": {"system": {}}}
    ruling = inspect(guard_of(policy), *turn(1, earlier), *others)

    assert (ruling.label, ruling.refused) == ("blocked", True)
    assert ruling.refused_field in {each.field for each in others}


@pytest.mark.parametrize("mode", ["dead", "slow", "nonsense", "short", "broken"])
def test_a_check_that_failed_drops_nothing(mode: str) -> None:
    earlier = turn(1, "a bomb")
    for policy in ({}, {"phrases": {"block": ["bomb"]}}):
        closed = inspect(guard_of({**DROP, **policy}, ScriptedClassifier(mode)), *earlier, LAST)
        assert (closed.refused, closed.unavailable, closed.label) == (True, True, "unscanned")

    passing = {**DROP, "when_unavailable": "pass"}
    unread = inspect(guard_of(passing, ScriptedClassifier(mode)), *earlier, LAST)
    read = inspect(guard_of({**passing, **policy}, ScriptedClassifier(mode)), *earlier, LAST)

    assert (unread.label, unread.dropped_turns, unread.texts[0]) == ("unscanned", frozenset(), "a bomb")
    assert (read.label, read.dropped_turns, read.texts[0]) == ("unscanned", frozenset({1}), "")


@pytest.mark.parametrize(
    ("action", "outcome", "label", "dropped"),
    [
        ("refuse", ReviewOutcome.APPROVED, "redacted", True),
        ("pass", ReviewOutcome.REJECTED, "review", False),
        ("queue", ReviewOutcome.APPROVED, "review", False),
        ("wait", ReviewOutcome.APPROVED, "allowed", False),
        ("wait", ReviewOutcome.REJECTED, "redacted", True),
        ("wait", ReviewOutcome.EXPIRED, "review", False),
    ],
)
def test_an_earlier_turn_in_doubt_follows_the_policy_of_reviews(
    action: str, outcome: ReviewOutcome, label: str, dropped: bool
) -> None:
    people = People(outcome)
    ruling = inspect(guard_of({**DROP, "review": {"action": action}}, oversight=people), *turn(1, "DOUBT"), LAST)

    assert (ruling.label, ruling.dropped_turns) == (label, frozenset({1} if dropped else ()))
    assert ruling.refused is (label == "review" and action != "pass")
    assert people.queued == (["DOUBT"] if action in ("queue", "wait") else [])


def test_an_approved_text_keeps_its_turn() -> None:
    people = People()
    people.approved = {"HARM and more"}
    ruling = inspect(guard_of(DROP, oversight=people), *turn(1, "HARM and more"), *turn(2, "HARM"), LAST)

    assert_dropped(ruling, 2)
    assert ruling.texts[0] == "HARM and more"


def test_a_dropped_turn_keeps_no_last_message_from_its_review() -> None:
    people = People()
    policy = {**DROP, "review": {"action": "queue"}}
    ruling = inspect(guard_of(policy, oversight=people), *turn(1, "HARM", "DOUBT"), Passage("SUSPECT", Origin.USER))

    assert (ruling.label, ruling.refused) == ("review", True)
    assert people.queued == ["SUSPECT"]  # a dropped turn is not queued for review


@pytest.mark.parametrize("action", ["block", "review"])
def test_the_size_of_a_request_drops_no_turn(action: str) -> None:
    policy = {**DROP, "sizes": {"max_characters": 20, "action": action}}
    ruling = inspect(guard_of(policy), *turn(1, "This is a long question."), LAST)

    assert (ruling.refused, ruling.dropped_turns) == (True, frozenset())


def test_dropped_turns_are_not_counted_as_blocked_and_the_rate_drops_none() -> None:
    guard = guard_of({**DROP, "rate": {"max_blocked": 2}})
    earlier = turn(1, "HARM")
    for _ in range(4):
        assert_dropped(inspect(guard, *earlier, LAST), 1)
    for _ in range(2):
        inspect(guard, *earlier, Passage("HARM", Origin.USER))
    shut_out = inspect(guard, *earlier, LAST)

    assert (shut_out.refused, shut_out.dropped_turns) == (True, frozenset())
    assert shut_out.reason is not None
    assert shut_out.reason.check == "rate"


def test_a_request_that_drops_several_turns_counts_as_one_that_is_blocked() -> None:
    guard = guard_of({**DROP, "rate": {"max_blocked": 2}})
    several = [*turn(1, "HARM"), *turn(2, "DOUBT"), *turn(3, "Hello")]  # DOUBT is no BLOCK, and a try all the same
    for _ in range(2):
        assert_dropped(inspect(guard, *several, LAST), 1, 2)
    shut_out = inspect(guard, LAST)

    assert (shut_out.refused, shut_out.reason and shut_out.reason.check) == (True, "rate")


def test_a_request_with_more_turns_to_drop_than_one_may_is_blocked() -> None:
    people = People()
    guard = guard_of({**DROP, "rate": {"max_blocked": 2}}, oversight=people)
    guesses = [passage for number in range(1, MAX_DROPPED_TURNS + 1) for passage in turn(number, f"HARM {number}")]
    assert_dropped(inspect(guard, *guesses, LAST), *range(1, MAX_DROPPED_TURNS + 1))
    people.records.clear()
    blocked = inspect(guard, *guesses, *turn(99, "HARM 99"), *turn(100, "Hello"), LAST)

    assert (blocked.label, blocked.refused, blocked.dropped_turns) == ("blocked", True, frozenset())
    assert blocked.refused_field == "messages[1].content"
    assert {(each.action, each.outcome, each.turns_dropped) for each in people.records} == {
        (Action.BLOCK, "refused", 0)
    }
    assert inspect(guard, LAST).refused  # both were counted


@pytest.mark.parametrize("last", ["HARM", "SUSPECT"])
@pytest.mark.parametrize("earlier", ["HARM", "DOUBT"])
@pytest.mark.parametrize("review", ["refuse", "queue"])
def test_a_request_that_is_refused_anyway_has_the_records_of_one_that_drops_nothing(
    last: str, earlier: str, review: str
) -> None:
    given, rulings = [], []
    for setting in ("drop", "block"):
        people = People()
        policy = {"earlier_turns": setting, "review": {"action": review}, "pii": {"requests": "redact"}}
        passages = [*turn(1, f"{earlier} of ann@example.com"), Passage(last, Origin.USER, "messages[3].content")]
        rulings.append(inspect(guard_of(policy, oversight=people), *passages))
        given.append(people.records)

    dropping, blocking = rulings
    assert given[0] == given[1]
    assert {each.outcome for each in given[0]} == {"refused", "redacted"}  # the address
    assert dropping.verdicts == blocking.verdicts
    assert dropping.texts == blocking.texts
    assert (dropping.refused, dropping.dropped, dropping.dropped_turns) == (True, frozenset(), frozenset())
    if review == "refuse" or earlier == last:
        assert dropping.refused_field == "messages[3].content"


def test_no_pseudonym_stands_for_what_is_dropped() -> None:
    policy = {**DROP, "pii": {"requests": "pseudonymise"}}
    last = Passage("I am ann@example.com", Origin.USER)
    ruling = inspect(guard_of(policy), *turn(1, "HARM bob@example.com", "bob@example.com"), last)

    assert_dropped(ruling, 1)
    assert ruling.texts == ("", "", "I am EMAIL_ADDRESS_1")
    assert dict(ruling.restored) == {"EMAIL_ADDRESS_1": "ann@example.com"}


def test_a_tool_result_that_the_policy_drops_or_quotes_alone_keeps_its_turn() -> None:
    policy = {**DROP, "injection": {"documents": {"action": "drop"}}}
    result = Passage("ATTACK", Origin.TOOL_RESULT, "messages[3].content", turn=1)
    ruling = inspect(guard_of(policy), *turn(1, "Look it up"), result, LAST)

    assert (ruling.label, ruling.dropped_turns) == ("redacted", frozenset())
    assert ruling.texts[0] == "Look it up"
    assert "ATTACK" not in ruling.texts[2]


@pytest.mark.parametrize(("action", "dropped"), [(Action.BLOCK, {1}), (Action.ALLOW, set())])
def test_a_text_that_no_check_could_read_drops_its_turn_where_it_would_be_refused(
    action: Action, dropped: set[int]
) -> None:
    found = Verdict("classifier", "1", action, error=TOO_MUCH_ENCODED)
    left_out = dropped_turns(PolicyConfig(earlier_turns="drop"), [*turn(1, "aGVsbG8="), LAST], [found])

    assert left_out.turns == dropped


@pytest.mark.parametrize("kept", ["none", "hmac"])
def test_the_audit_log_says_how_many_turns_were_dropped_and_why(kept: str) -> None:
    people = People()
    guard = guard_of({**DROP, "audit_text": kept, "phrases": {"block": ["bomb"]}}, oversight=people)
    inspect(guard, *turn(1, "HARM and a bomb"), *turn(2, "Hello"), *turn(3, "Hello", "a bomb"), LAST)

    said = [(each.check, each.version != "", each.category, each.outcome) for each in people.records]
    assert said == [
        ("classifier", True, "violence", "dropped"),
        ("phrases", True, "BLOCKED_PHRASE", "dropped"),
        ("phrases", True, "BLOCKED_PHRASE", "dropped"),
    ]
    assert {each.turns_dropped for each in people.records} == {2}
    assert {each.text for each in people.records} == ({"HARM and a bomb", "a bomb"} if kept == "hmac" else {""})


def test_records_of_other_findings_name_no_dropped_turn() -> None:
    people = People()
    guard = guard_of({**DROP, "pii": {"requests": "redact"}}, oversight=people)
    inspect(guard, *turn(1, "HARM"), Passage("I am ann@example.com", Origin.USER))

    said = [(each.check, each.outcome, each.turns_dropped) for each in people.records]
    assert said == [("classifier", "dropped", 1), ("pii", "redacted", 0)]


def test_another_setting_is_another_version_of_the_policy() -> None:
    assert PolicyConfig(earlier_turns="drop").version != PolicyConfig().version
