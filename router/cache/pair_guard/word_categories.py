"""Categories of words, such as units, days, places and colours: no word can stand for another of its category.

"May" does not mean "June": two questions that differ in such a word alone have different answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from router.cache.pair_guard.parsed_question import ParsedQuestion
from router.cache.pair_guard.word_lists import word_lists


def table(kinds: Iterable[Iterable[str]]) -> dict[str, tuple[int, str]]:
    """Returns, for each word, the number of its category and its common name. Each of ``kinds``, the categories, lists
    its members as ``name/spelling/…``."""
    found = {}
    for number, kind in enumerate(kinds):
        for member in kind:
            name, *spellings = member.split("/")
            found.update(dict.fromkeys((name, *spellings), (number, name)))
    return found


TABLES: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {
    name: table(kinds) for name, kinds in word_lists()["kinds"].items()
}
CURRENCIES: Final = {"$": "dollar", "€": "euro", "£": "sterling", "¥": "yen", "₹": "rupee", "₩": "krw", "₽": "rouble"}
"""The names of currency signs, as they are in the table "units"."""

GLUED: Final = re.compile(r"(?<=\d)(?=[a-z])")


def members(text: ParsedQuestion, name: str) -> dict[int, frozenset[str]]:
    """Returns the words of a question that are in the table ``name`` of TABLES, by the number of their category."""
    words = [part for word in text.words for part in GLUED.split(word)]
    words += [CURRENCIES[sign] for sign in text.text if sign in CURRENCIES]
    found: dict[int, set[str]] = {}
    for word in words:
        if entry := TABLES[name].get(word):
            found.setdefault(entry[0], set()).add(entry[1])
    return {kind: frozenset(each) for kind, each in found.items()}


def kinds_differ(one: ParsedQuestion, other: ParsedQuestion, name: str) -> bool:
    """Returns whether both questions have words of one category of the table ``name``, such as two months, and each has
    one that the other has not."""
    first, second = members(one, name), members(other, name)
    return any(first[kind] - second[kind] and second[kind] - first[kind] for kind in first.keys() & second.keys())
