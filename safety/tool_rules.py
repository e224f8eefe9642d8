"""Decides which tools a role may offer to a model, and which calls of them may be returned. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache

from safety.api import TOOLS, Action, Verdict
from safety.check_policies import ToolRule

VERSION = "1"
TYPE = "function"  # the only type of tools that requests have


def offered(rules: Sequence[ToolRule], role: str, name: str) -> Verdict | None:
    """Returns a verdict of BLOCK if ``role`` may not offer the tool ``name`` to a model; else None.

    The call has no arguments yet: a rule that denies some arguments is left out, and one that allows some arguments
    allows the offer.
    """
    found = (rule for rule in rules if _concerns(rule, role, name) and (rule.action == "allow" or not rule.arguments))
    return _verdict(next(found, None))


def called(rules: Sequence[ToolRule], role: str, name: str, arguments: str) -> Verdict | None:
    """Returns a verdict of BLOCK if ``role`` may not call ``name`` with ``arguments``, which is JSON; else None.

    Arguments that are no JSON object, or have two members of one name, are denied where a rule about arguments concerns
    the tool, since the rule cannot be checked.
    """
    if not needs_arguments(rules, role, name):
        return offered(rules, role, name)
    try:
        values = json.loads(arguments or "{}", object_pairs_hook=_members)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        return _denied()
    found = (rule for rule in rules if _concerns(rule, role, name) and _arguments_match(rule, values))
    return _verdict(next(found, None))


def needs_arguments(rules: Sequence[ToolRule], role: str, name: str) -> bool:
    """Returns whether a rule about arguments concerns calls of ``name`` by ``role``."""
    return any(rule.arguments and _concerns(rule, role, name) for rule in rules)


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Returns the members of an object. Raises ValueError for two of one name: readers differ in which of them they
    take."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("two members of one name")
    return members


def _concerns(rule: ToolRule, role: str, name: str) -> bool:
    if rule.roles is not None and role not in rule.roles:
        return False
    return rule.type in (None, TYPE) and _pattern(rule.name).fullmatch(name) is not None


def _arguments_match(rule: ToolRule, values: dict[str, object]) -> bool:
    return all(
        name in values and _pattern(pattern).fullmatch(_text(values[name])) is not None
        for name, pattern in rule.arguments.items()
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _verdict(rule: ToolRule | None) -> Verdict | None:
    return _denied() if rule is not None and rule.action == "deny" else None


def _denied() -> Verdict:
    return Verdict(TOOLS, VERSION, Action.BLOCK, "tool")


@lru_cache(maxsize=4096)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)
