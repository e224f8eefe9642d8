"""The guard and personal data and secrets in requests: redacted, replaced by pseudonyms, refused."""

from __future__ import annotations

import pytest

from safety.api import Action
from tests.safety.guards import guard_of, inspect


def test_pseudonyms_stand_for_the_same_value_in_all_texts() -> None:
    ruling = inspect(
        guard_of({"pii": {"requests": "pseudonymise"}}), "I am bob@acme.com.", "ann@acme.com, bob@acme.com"
    )

    assert ruling.texts == ("I am EMAIL_ADDRESS_1.", "EMAIL_ADDRESS_2, EMAIL_ADDRESS_1")
    assert ruling.restored == {"EMAIL_ADDRESS_1": "bob@acme.com", "EMAIL_ADDRESS_2": "ann@acme.com"}
    assert ruling.label == "redacted"


@pytest.mark.parametrize(
    ("mode", "kinds", "text", "label"),
    [
        ("redact", None, "I am <EMAIL_ADDRESS>.", "redacted"),
        ("redact", ["IBAN_CODE"], "I am bob@acme.com.", "allowed"),
        ("block", None, "I am bob@acme.com.", "blocked"),
        ("off", None, "I am bob@acme.com.", "allowed"),
    ],
)
def test_personal_data_in_requests(mode: str, kinds: list[str] | None, text: str, label: str) -> None:
    ruling = inspect(guard_of({"pii": {"requests": mode, "kinds": kinds}}), "I am bob@acme.com.")

    assert (ruling.texts, ruling.label) == ((text,), label)


@pytest.mark.parametrize("action", ["redact", "block"])
def test_a_secret_in_a_request_is_what_the_policy_says(action: str) -> None:
    key = "AKIA" + "ABCDEFGHIJKLMNOP"
    ruling = inspect(guard_of({"secrets": {"requests": action}}), f"Use {key}.")

    assert ruling.action is Action(action)
    assert any(verdict.check == "secrets" for verdict in ruling.verdicts)
    if action == "redact":
        assert ruling.texts == ("Use <AWS_ACCESS_KEY>.",)
