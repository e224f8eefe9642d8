"""Texts that no model answers are checked as far as the policy asks for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from safety.api import Origin, Passage, Ruling, TextUse
from safety.compiled_policy import Parts
from safety.guard import PolicyGuard
from safety.policy import PolicyConfig, SafetyPolicies
from safety.policy_source import ConfiguredPolicies
from tests.safety.guards import ACME
from tests.safety.scripted_classifier import ScriptedClassifier

MAIL = "Write to ann@example.com"
MARKED = "Write to <EMAIL_ADDRESS>"
KEY = "Use AKIAIOSFODNN7EXAMPLQ."


def inspected(policy: dict[str, Any], text: str, use: TextUse, origin: Origin = Origin.USER) -> Ruling:
    policies = SafetyPolicies(default=PolicyConfig.model_validate({"deadline_s": 5, **policy}))
    guard = PolicyGuard(ConfiguredPolicies(policies), Parts(ScriptedClassifier()))
    return asyncio.run(guard.inspect(ACME, [Passage(text, origin, "input")], use=use))


@pytest.mark.parametrize(
    ("pii", "embedded", "stored", "result"),
    [
        ({}, MAIL, MAIL, MAIL),
        ({"requests": "redact"}, MARKED, MAIL, MAIL),
        ({"requests": "pseudonymise"}, MARKED, MAIL, MAIL),
        ({"requests": "pseudonymise", "answers": "redact"}, MARKED, MAIL, MARKED),
        ({"requests": "block"}, None, None, MAIL),
        ({"answers": "block"}, MAIL, MAIL, ""),
    ],
)
def test_personal_data_is_what_the_policy_says_of_its_use(
    pii: dict[str, str], embedded: str | None, stored: str | None, result: str | None
) -> None:
    expected = {TextUse.EMBEDDING: embedded, TextUse.STORAGE: stored, TextUse.RESULT: result}
    for use, text in expected.items():
        ruling = inspected({"pii": pii}, MAIL, use)
        assert (None if ruling.refused else ruling.texts[0]) == text, use
        assert not ruling.restored


def test_secrets_and_phrases_count_as_personal_data_does() -> None:
    policy = {"secrets": {"requests": "redact"}, "phrases": {"block": ["zorblax"]}}

    assert inspected(policy, KEY, TextUse.EMBEDDING).texts == ("Use <AWS_ACCESS_KEY>.",)
    assert inspected(policy, KEY, TextUse.STORAGE).texts == (KEY,)
    refusing = [use for use in TextUse if inspected(policy, "a zorblax", use).refused]
    assert refusing == [TextUse.GENERATION, TextUse.EMBEDDING, TextUse.STORAGE]
    assert inspected(policy, "a zorblax", TextUse.RESULT).texts == ("",)
    policy["retrieval"] = {"patterns": False}
    assert [use for use in TextUse if inspected(policy, "a zorblax", use).refused] == [TextUse.GENERATION]


@pytest.mark.parametrize("use", [use for use in TextUse if use is not TextUse.GENERATION])
@pytest.mark.parametrize(("text", "setting"), [("HARM", "content"), ("ATTACK", "injection")])
def test_the_classifier_reads_what_no_model_answers_if_it_is_asked_to(use: TextUse, text: str, setting: str) -> None:
    expected = "redacted" if use is TextUse.RESULT else "blocked"
    assert inspected({}, text, use).label == "unscanned"
    assert inspected({"retrieval": {setting: True}}, text, use, Origin.DOCUMENT).label == expected
    other = "injection" if setting == "content" else "content"
    assert inspected({"retrieval": {other: True}}, text, use, Origin.DOCUMENT).label == "allowed"


@pytest.mark.parametrize(
    ("action", "stored", "result"),
    [("drop", "blocked", "redacted"), ("quote", "blocked", "redacted"), ("review", "review", "redacted")],
)
def test_a_document_with_an_injection_is_not_stored_in_parts(action: str, stored: str, result: str) -> None:
    policy = {"injection": {"documents": {"action": action}}, "retrieval": {"injection": True}}

    assert inspected(policy, "ATTACK", TextUse.STORAGE, Origin.DOCUMENT).label == stored
    assert inspected(policy, "ATTACK", TextUse.RESULT, Origin.DOCUMENT).label == result


@pytest.mark.parametrize("use", list(TextUse))
def test_the_ledger_names_the_tenants_policy_whatever_the_use(use: TextUse) -> None:
    policy = PolicyConfig(deadline_s=5)

    assert inspected({}, "hello", use).policy == policy.version
    assert policy.for_use(use).version == policy.version if use is TextUse.GENERATION else True


def test_many_texts_to_embed_are_no_request_of_unusual_size_unless_they_are_classified() -> None:
    sizes = {"sizes": {"max_characters": 100}}

    assert inspected(sizes, "x " * 100, TextUse.EMBEDDING).label == "unscanned"
    assert inspected({**sizes, "retrieval": {"content": True}}, "x " * 100, TextUse.EMBEDDING).label == "blocked"
    assert inspected(sizes, "x " * 100, TextUse.GENERATION).label == "blocked"
