"""Policies: what is refused when they are loaded, and what identifies them."""

from __future__ import annotations

import pickle
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from cluster.safety.config import SafetySettings
from safety.policy import PolicyConfig, SafetyPolicies


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"unknown": 1}, "unknown"),
        ({"content": {"block": 1.1}}, "content.block"),
        ({"content": {"block": float("nan")}}, "content.block"),
        ({"content": {"block": 0.5, "review": 0.6}}, "content"),
        ({"content": {"categories": {"violence": {"block": "high"}}}}, "content.categories.violence.block"),
        ({"injection": {"documents": {"action": "burn"}}}, "injection.documents.action"),
        ({"phrases": {"block": ["..."]}}, "phrases.block"),
        ({"phrases": {"block": [""]}}, "phrases.block.0"),
        ({"pii": {"kinds": ["SHOE_SIZE"]}}, "pii.kinds"),
        ({"pii": {"kinds": []}}, "pii.kinds"),
        ({"tools": [{"action": "deny", "name": "("}]}, "tools.0.name"),
        ({"tools": [{"action": "deny", "arguments": {"a": "["}}]}, "tools.0.arguments"),
        ({"tools": [{"name": "a"}]}, "tools.0.action"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"refusal": ""}, "refusal"),
        ({"earlier_turns": "forget"}, "earlier_turns"),
        ({"unchecked": ["nowhere"]}, "unchecked.0"),
        ({"review": {"action": "wait", "wait_s": 0}}, "review.wait_s"),
    ],
)
def test_a_wrong_policy_is_refused_by_its_field(policy: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as error:
        PolicyConfig.model_validate(policy)

    assert ".".join(map(str, error.value.errors()[0]["loc"])) == field


def test_the_version_follows_the_content() -> None:
    first, same = PolicyConfig(), PolicyConfig.model_validate_json(PolicyConfig().model_dump_json())

    assert first.version == same.version
    assert first.version != PolicyConfig(refusal="No.").version


def test_a_policy_that_needs_a_classifier_is_refused_without_one() -> None:
    off = {"content": None, "content_answers": None, "injection": {"user": None, "documents": None}}
    policies = {"default": off, "tenants": {"acme": {**off, "content": {}}}}
    with pytest.raises(ValidationError, match=r"policies\.tenants\.acme: it needs safety\.classifier"):
        SafetySettings.model_validate({"policies": policies})

    assert SafetySettings.model_validate({"policies": {"default": off}}).policies is not None


def test_a_tenants_policy_takes_nothing_from_the_default() -> None:
    policies = SafetyPolicies(default=PolicyConfig(refusal="No."), tenants={"acme": PolicyConfig()})

    assert policies.of("acme").refusal == PolicyConfig().refusal
    assert policies.of("other").refusal == "No."


OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def test_the_policies_of_the_document_are_valid() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    start = text.index("    safety:\n      classifier:")
    example = yaml.safe_load(textwrap.dedent(text[start : text.index("\n\n", start)]))
    policies = SafetySettings.model_validate(example["safety"]).policies

    assert policies is not None
    assert policies.of("internal").when_unavailable == "pass"
    assert policies.of("other").tools[-1].action == "deny"


def test_a_policy_travels_to_the_routers() -> None:
    policies = SafetyPolicies(tenants={"acme": PolicyConfig(refusal="No.")})
    version = policies.of("acme").version
    arrived: SafetyPolicies = pickle.loads(pickle.dumps(policies))

    assert arrived == policies
    assert arrived.of("acme").version == version
