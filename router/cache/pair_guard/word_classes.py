"""Kinds of words of which one cannot stand for another: units, days, places, programming languages, colours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from router.cache.pair_guard.parsed_question import Reading
from router.cache.pair_guard.word_lists import word_lists


def table(kinds: Iterable[Iterable[str]]) -> dict[str, tuple[int, str]]:
    """Returns the number of the kind and the common name of each word. A member is written ``name/spelling/…``."""
    found = {}
    for number, kind in enumerate(kinds):
        for member in kind:
            name, *spellings = member.split("/")
            found.update(dict.fromkeys((name, *spellings), (number, name)))
    return found


TABLES: Final[Mapping[str, Mapping[str, tuple[int, str]]]] = {
    name: table(kinds) for name, kinds in word_lists()["kinds"].items()
}
GLUED: Final = re.compile(r"(?<=\d)(?=[a-z])")


def members(text: Reading, name: str) -> dict[int, frozenset[str]]:
    """Returns the words of each kind of the table ``name`` in a question, by the number of the kind."""
    words = [part for word in text.words for part in GLUED.split(word)]
    found: dict[int, set[str]] = {}
    for word in words:
        if entry := TABLES[name].get(word):
            found.setdefault(entry[0], set()).add(entry[1])
    return {kind: frozenset(each) for kind, each in found.items()}


def kinds_differ(one: Reading, other: Reading, name: str) -> bool:
    """Tells whether both name a thing of one kind, and each one that the other does not name."""
    first, second = members(one, name), members(other, name)
    return any(first[kind] - second[kind] and second[kind] - first[kind] for kind in first.keys() & second.keys())
