"""The guard and people: what a reviewer decides, and what the audit log says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from safety.api import Origin, Passage, ReviewOutcome
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from safety.policy import PolicyConfig
from tests.safety.guards import ACME, People, guard_of, inspect
from tests.safety.scripted_classifier import ScriptedClassifier


@pytest.mark.parametrize(
    ("action", "outcome", "refused", "label"),
    [
        ("refuse", ReviewOutcome.APPROVED, True, "review"),
        ("pass", ReviewOutcome.REJECTED, False, "review"),
        ("queue", ReviewOutcome.APPROVED, True, "review"),
        ("wait", ReviewOutcome.APPROVED, False, "allowed"),
        ("wait", ReviewOutcome.REJECTED, True, "blocked"),
        ("wait", ReviewOutcome.EXPIRED, True, "review"),
    ],
)
def test_what_a_person_should_decide(action: str, outcome: ReviewOutcome, refused: bool, label: str) -> None:
    people = People(outcome)
    ruling = inspect(guard_of({"review": {"action": action}}, oversight=people), "hi", "DOUBT", "SUSPECT")

    assert (ruling.refused, ruling.label) == (refused, label)
    assert people.queued == (["DOUBT", "SUSPECT"] if action in ("queue", "wait") else [])
    assert ("item-1" in ruling.message) is (action != "refuse" and label == "review" and refused)


def test_a_full_queue_lets_nothing_pass() -> None:
    ruling = inspect(guard_of({"review": {"action": "wait"}}, oversight=People(full=True)), "DOUBT")

    assert ruling.refused
    assert ruling.label == "review"


def test_a_blocked_request_is_not_queued() -> None:
    people = People()
    inspect(guard_of({"review": {"action": "queue"}}, oversight=people), "DOUBT", "HARM")

    assert not people.queued


def test_an_approved_text_passes_and_no_other() -> None:
    people = People()
    people.approved = {"HARM and more"}
    guard = guard_of(oversight=people)

    assert inspect(guard, "HARM and more").label == "allowed"
    assert inspect(guard, "HARM").label == "blocked"


@pytest.mark.parametrize("kept", ["none", "hmac"])
def test_the_audit_log_has_what_each_check_did(kept: str) -> None:
    people = People()
    policy = {"audit": "all", "audit_text": kept, "sizes": {"max_characters": 100}, "structure": None}
    guard = guard_of(policy, oversight=people)
    inspect(guard, "fine")
    inspect(guard, "fine")
    inspect(guard, "fine", "HARM")

    said = [(record.check, record.outcome, record.category) for record in people.records]
    assert said == [
        ("classifier", "allowed", ""),
        ("sizes", "allowed", ""),
        ("classifier", "remembered", ""),
        ("sizes", "allowed", ""),
        ("classifier", "refused", "violence"),
        ("sizes", "allowed", ""),
    ]
    assert {record.text for record in people.records} == ({"", "HARM"} if kept == "hmac" else {""})
    assert {record.version for record in people.records} == {"scripted-1", "1"}


def test_the_audit_log_says_what_was_not_scanned() -> None:
    people = People()
    policy = {"when_unavailable": "pass", "structure": None}
    inspect(guard_of(policy, ScriptedClassifier("dead"), oversight=people), "fine")

    assert [(record.check, record.outcome, record.score) for record in people.records] == [
        ("classifier", "unscanned", None)
    ]


class Replaced:
    """A policy that is replaced. Implements ``PolicySource``."""

    def __init__(self, policy: dict[str, Any]) -> None:
        self.policy = PolicyConfig.model_validate(policy)

    def replaced(self, tenant: str) -> bool:
        return False

    async def of(self, tenant: str) -> PolicyConfig:
        return self.policy


def test_answers_are_checked_by_the_policy_that_the_request_was() -> None:
    """Its version is in the ledger, in the audit log and in the key of a stored answer."""
    source, people = Replaced({"phrases": {"block": ["bomb"]}, "audit": "all"}), People()
    guard = PolicyGuard(source, Parts(ScriptedClassifier()), people)

    async def run() -> bool:
        passages = [Passage("Hi", Origin.USER, "prompt")]
        ruling = await guard.inspect(ACME, passages)
        source.policy = PolicyConfig.model_validate({"content_answers": None})
        answers = await guard.answers(ACME, passages, ruling, lambda inspection: None)
        assert answers is not None
        moderator = answers.moderator(Origin.ANSWER, lambda: None)
        assert moderator is not None
        moderator.push("a bomb", final=True)
        answers.record(0, await moderator.close())
        return moderator.halted

    assert asyncio.run(run())
    assert ("phrases", "halted") in [(record.check, record.outcome) for record in people.records]
