"""What a client cannot change, multiply or carry over: the count of its blocked requests, the work of its checks, and
what a reviewer has approved."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from safety.api import TOO_MUCH_ENCODED, Origin, Passage, Ruling, Stage, Subject, TextUse
from safety.classification import SPARE_DECODED, bounded
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from safety.policy import PolicyConfig, SafetyPolicies
from safety.policy_source import ConfiguredPolicies
from tests.safety.guards import ACME, People
from tests.safety.scripted_classifier import ScriptedClassifier

WORDS = "the river runs past the old stone market and the garden of the city in winter "


def guard_of(policy: dict[str, Any], classifier: ScriptedClassifier | None = None, **others: Any) -> PolicyGuard:
    policies = SafetyPolicies(default=PolicyConfig.model_validate({"deadline_s": 5, **policy}))
    return PolicyGuard(ConfiguredPolicies(policies), Parts(classifier or ScriptedClassifier()), **others)


def inspect(guard: PolicyGuard, *passages: Passage, subject: Subject = ACME) -> Ruling:
    return asyncio.run(guard.inspect(subject, passages))


def user(text: str) -> Passage:
    return Passage(text, Origin.USER, "prompt")


def by(name: str, key: str = "k") -> Subject:
    return Subject("acme", "r", key, user=name)


def test_a_user_who_is_kept_out_does_not_keep_out_the_others_of_the_key() -> None:
    guard = guard_of({"rate": {"max_blocked": 2}})
    for _ in range(5):
        inspect(guard, user("HARM"), subject=by("ann"))

    assert inspect(guard, user("hello"), subject=by("ann")).label == "blocked"
    assert inspect(guard, user("hello"), subject=by("bob")).label == "allowed"
    assert inspect(guard, user("hello"), subject=by("ann", key="another")).label == "allowed"


@pytest.mark.parametrize(("rate", "tries"), [({}, 20), ({"max_blocked_by_key": 3}, 3), ({"max_blocked_by_key": 1}, 1)])
def test_a_client_that_names_another_user_each_time_is_kept_out_by_its_key(rate: dict[str, int], tries: int) -> None:
    guard = guard_of({"rate": {"max_blocked": 2, **rate}})
    for turn in range(tries):
        assert inspect(guard, user("hello"), subject=by("a new one")).label == "allowed"
        inspect(guard, user("HARM"), subject=by(f"user-{turn}"))

    assert inspect(guard, user("hello"), subject=by("a new one")).label == "blocked"


@pytest.mark.parametrize("use", [use for use in TextUse if use is not TextUse.GENERATION])
def test_documents_that_may_not_be_indexed_keep_no_key_out(use: TextUse) -> None:
    guard = guard_of({"rate": {"max_blocked": 1}, "phrases": {"block": ["zorblax"]}})
    passages = [Passage("a zorblax", Origin.DOCUMENT, "documents[0].text")]

    refused = asyncio.run(guard.inspect(ACME, passages, use=use))
    assert refused.label == ("redacted" if use is TextUse.RESULT else "blocked")

    assert inspect(guard, user("hello")).label == "allowed"


def test_the_classifier_reads_no_more_of_many_passages_than_of_one() -> None:
    """Each passage may be decoded five times its length."""
    classifier = ScriptedClassifier()
    parts = Parts(classifier, decode=lambda text: [f"{disguise} {text}" for disguise in range(5)])
    policy = PolicyConfig.model_validate({"sizes": {"max_characters": None}, "structure": None, "deadline_s": 5})
    guard = PolicyGuard(ConfiguredPolicies(SafetyPolicies(default=policy)), parts)
    passages = [user(f"{number} {WORDS * 50}") for number in range(30)]

    ruling = inspect(guard, *passages)

    own = sum(len(each.text) for each in passages)
    assert own + SPARE_DECODED < sum(map(len, classifier.texts)) <= 2 * own + SPARE_DECODED
    assert ruling.label == "blocked"
    assert {each.error for each in ruling.verdicts} == {TOO_MUCH_ENCODED}
    assert inspect(guard, *passages[:3]).label == "allowed"


def test_what_is_beyond_the_bound_is_not_classified_and_said_to_be_so() -> None:
    text = "y" * 10
    long = "x" * (SPARE_DECODED + 50 - 15)  # of five passages with 50 characters

    kept, unread = bounded([[text, long], [text], [text, text, text], [], [text, text], [text, text]])

    assert unread == [2, 5]
    assert kept == [[text, long], [text], [text], [], [text, text], [text]]


@pytest.mark.parametrize(("unavailable", "label"), [("refuse", "blocked"), ("pass", "unscanned")])
def test_text_that_is_not_decoded_is_refused_or_unscanned(unavailable: str, label: str) -> None:
    many = 1 + SPARE_DECODED // 100
    parts = Parts(ScriptedClassifier(), decode=lambda text: [text * many])
    policies = SafetyPolicies(
        default=PolicyConfig.model_validate({"when_unavailable": unavailable, "structure": None, "deadline_s": 5})
    )
    guard = PolicyGuard(ConfiguredPolicies(policies), parts)

    ruling = inspect(guard, user("a" * 100), user("b" * 100))

    assert ruling.label == label
    assert [(each.passage, each.error) for each in ruling.verdicts] == [(1, TOO_MUCH_ENCODED)]
    assert not ruling.unavailable
    assert inspect(guard, user("b" * 100)).label == "allowed"  # alone it is read: nothing is remembered of it


class ReviewersByOrigin(People):
    """Reviewers who have approved a text from one origin."""

    async def allowed(self, tenant: str, text: str, origin: Origin) -> bool:
        return origin is Origin.USER and text in self.approved


@pytest.mark.parametrize("origin", [Origin.DOCUMENT, Origin.TOOL_RESULT, Origin.HISTORY, Origin.SYSTEM])
def test_what_was_approved_as_a_users_text_is_approved_as_no_other(origin: Origin) -> None:
    people = ReviewersByOrigin()
    people.approved = {"HARM and more"}
    guard = guard_of({}, oversight=people)

    assert inspect(guard, user("HARM and more")).label == "allowed"
    assert inspect(guard, Passage("HARM and more", origin, "messages[1].content")).label == "blocked"


@pytest.mark.parametrize(("streamed", "stage"), [(True, Stage.DURING), (False, Stage.AFTER)])
def test_the_audit_log_says_whether_an_answer_was_checked_while_it_was_sent(streamed: bool, stage: Stage) -> None:
    people = People()
    guard = guard_of({"phrases": {"block": ["bomb"]}, "audit": "all"}, oversight=people)

    async def run() -> None:
        passages = [user("Hi")]
        ruling = await guard.inspect(ACME, passages)
        people.records.clear()
        answers = await guard.answers(ACME, passages, ruling, lambda inspection: None, streamed=streamed)
        assert answers is not None
        for text in ("a bomb", "a boat"):
            moderator = answers.moderator(Origin.ANSWER, lambda: None)
            assert moderator is not None
            moderator.push(text, final=True)
            answers.record(0, await moderator.close())

    asyncio.run(run())

    assert {record.stage for record in people.records} == {stage}
    assert {record.outcome for record in people.records} >= {"halted", "allowed"}
