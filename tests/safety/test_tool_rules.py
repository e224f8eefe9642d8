"""Tools by role: offered to the model, and called by it."""

from __future__ import annotations

import pytest

from safety.check_policies import ToolRule
from safety.tool_rules import called, needs_arguments, offered

RULES = (
    ToolRule(action="allow", roles=("admin",)),
    ToolRule(action="deny", name="delete_.*"),
    ToolRule(action="allow", name="mail", arguments={"to": r".*@acme\.com", "count": r"[0-9]"}),
    ToolRule(action="deny", name="mail"),
    ToolRule(action="allow", name="look|mail.*"),
    ToolRule(action="deny"),
)


@pytest.mark.parametrize(
    ("role", "name", "allowed"),
    [
        ("user", "look", True),
        ("user", "mail", True),
        ("user", "delete_all", False),
        ("admin", "delete_all", True),
        ("user", "looks", False),
        ("user", "mailer", True),
        ("user", "look\ndelete_all", False),
    ],
)
def test_a_tool_is_offered_by_the_first_rule_for_its_name(role: str, name: str, allowed: bool) -> None:
    assert (offered(RULES, role, name) is None) is allowed
    assert (called(RULES, role, name, '{"to": "a@acme.com", "count": 1}') is None) is allowed


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ('{"to": "bob@acme.com", "count": 1}', True),
        ('{"to": "bob@acme.com", "count": 10}', False),
        ('{"to": "bob@acme.com"}', False),
        ('{"to": "bob@evil.com", "count": 1}', False),
        ('{"to": "bob@evil.com", "to": "bob@acme.com", "count": 1}', False),
        ('{"to": ["bob@acme.com"], "count": 1}', False),
        ("", False),
        ("[1]", False),
        ('{"to": "bob@acme.com", "count": 1', False),
        ("[" * 100_000, False),
    ],
)
def test_a_call_is_allowed_by_its_arguments(arguments: str, allowed: bool) -> None:
    assert needs_arguments(RULES, "user", "mail")
    assert (called(RULES, "user", "mail", arguments) is None) is allowed


def test_without_rules_every_tool_is_allowed() -> None:
    assert offered((), "user", "anything") is None
    assert called((), "user", "anything", "not JSON") is None
