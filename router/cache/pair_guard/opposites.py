"""Opposites: antonyms, words with the prefixes un-, dis- and in-, and a negation in one question alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from router.cache.pair_guard.parsed_question import NEGATORS, ParsedQuestion, listed, own_stems, stem
from router.cache.pair_guard.word_lists import word_lists

PREFIXES: Final = ("un", "dis", "in", "im", "il", "ir", "non", "mis")
MIN_ROOT, MIN_ROOT_DE = 4, 6
NO_OPPOSITES: Final = frozenset(map(stem, word_lists()["no_opposites"]))
"""Words that begin like an opposite and are none."""

DENIALS: Final = frozenset(map(stem, NEGATORS))
AUXILIARIES: Final = frozenset(
    map(stem, listed("do does did is are was were be have has had can could will would should so the a an any ever it"))
)


def antonyms() -> Mapping[str, frozenset[str]]:
    """Returns a table from the stem of each word to the stems of its antonyms."""
    found: dict[str, set[str]] = defaultdict(set)
    for group in word_lists()["antonyms"]:
        head, *others = map(stem, group.split())
        for other in others:
            found[head].add(other)
            found[other].add(head)
    return {word: frozenset(others - {word}) for word, others in found.items()}


OPPOSITES: Final = antonyms()


def opposite(one: str, other: str) -> bool:
    """Returns whether two stems are opposites: antonyms, or one is the other with un-, dis-, in- and the like."""
    if other in OPPOSITES.get(one, ()):
        return True
    root, made = sorted((one, other), key=len)
    if made in NO_OPPOSITES or not root.isalpha():
        return False
    prefixes = PREFIXES if len(root) >= MIN_ROOT else ()
    return made in {prefix + root for prefix in prefixes} or (len(root) >= MIN_ROOT_DE and made == "de" + root)


def opposites_differ(one: ParsedQuestion, other: ParsedQuestion) -> bool:
    """Returns whether a word of one question has its opposite in the other.

    Where one of them also denies, the two may cancel out: "not illegal" and "legal". Then only a word that itself
    denies counts: "always" and "never".
    """
    denied = (one.negations - other.negations) % 2
    first, second = own_stems(one, other)
    return any(
        opposite(word, against) and (not denied or word in DENIALS or against in DENIALS)
        for word in first - {"in"}
        for against in second - {"in"}
    )


def negations_differ(one: ParsedQuestion, other: ParsedQuestion) -> bool:
    """Returns whether the two questions differ in a negation alone, with the words that it needs."""
    if (one.negations - other.negations) % 2 == 0:
        return False
    first, second = own_stems(one, other)
    return not (first | second) - DENIALS - AUXILIARIES
