"""Kinds of words of which one cannot stand for another: units, days, places, programming languages, colours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from router.cache.pair_guard.parsed_question import Reading
from router.cache.pair_guard.word_lists import word_lists


def table(kinds: Iterable[Iterable[str]]) -> dict[str, tuple[int, str]]:
    """Returns, for each word, the number of its kind and its common name. Each kind lists its members as
    ``name/spelling/…``."""
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


def members(text: Reading, name: str) -> dict[int, frozenset[str]]:
    """Returns the words of a question that are in the table ``name``, by the number of their kind."""
    words = [part for word in text.words for part in GLUED.split(word)]
    words += [CURRENCIES[sign] for sign in text.text if sign in CURRENCIES]
    found: dict[int, set[str]] = {}
    for word in words:
        if entry := TABLES[name].get(word):
            found.setdefault(entry[0], set()).add(entry[1])
    return {kind: frozenset(each) for kind, each in found.items()}


def kinds_differ(one: Reading, other: Reading, name: str) -> bool:
    """Returns whether both questions name something of one kind, and each names one that the other does not."""
    first, second = members(one, name), members(other, name)
    return any(first[kind] - second[kind] and second[kind] - first[kind] for kind in first.keys() & second.keys())
