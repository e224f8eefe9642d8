"""``refusal``: the rule that forbids a semantic hit between two questions, whatever score the pair scorer gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from router.cache.pair_guard.foreign_language import either_foreign
from router.cache.pair_guard.names import identifiers_differ, names_differ
from router.cache.pair_guard.numbers import half_days_differ, numbers_differ
from router.cache.pair_guard.operators import operators_differ
from router.cache.pair_guard.opposites import negations_differ, opposites_differ
from router.cache.pair_guard.parsed_question import ParsedQuestion, parse_question
from router.cache.pair_guard.question_types import asks_differ
from router.cache.pair_guard.unread_parts import unread_parts_differ
from router.cache.pair_guard.word_categories import TABLES, kinds_differ
from router.cache.pair_guard.word_order import exchanged, reversed_direction

Rule = Callable[[ParsedQuestion, ParsedQuestion], bool]

RULES: Final[Mapping[str, Rule]] = {
    "number": numbers_differ,
    "half of the day": half_days_differ,
    "operator": operators_differ,
    **{name: partial(kinds_differ, name=name) for name in TABLES},
    "opposite": opposites_differ,
    "negation": negations_differ,
    "direction": reversed_direction,
    "exchange": exchanged,
    "identifier": identifiers_differ,
    "name": names_differ,
    "asked": asks_differ,
    "not english": either_foreign,
    "unread": unread_parts_differ,
}
"""The rules by the reason that they give, in the order in which they are asked."""

MAX_CHARACTERS: Final = 4000
"""Of a question that is read. The rules take time in its square at most."""


def refusal(question: str, candidate: str, rules: Mapping[str, Rule] = RULES) -> str | None:
    """Returns the name of the first rule that refuses the pair; None if none does.

    The order of the two questions makes no difference. Equal texts are never refused. Different texts of which one is
    longer than MAX_CHARACTERS are refused as "length".
    """
    if question == candidate:
        return None
    if max(len(question), len(candidate)) > MAX_CHARACTERS:
        return "length"
    one, other = parse_question(question), parse_question(candidate)
    return next((reason for reason, rule in rules.items() if rule(one, other)), None)
