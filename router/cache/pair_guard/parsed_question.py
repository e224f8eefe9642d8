"""``ParsedQuestion``: a question, parsed into words, stems and counts for the rules of the pair guard."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from router.cache.pair_guard.word_lists import word_lists

TOKEN: Final = re.compile(
    r"[A-Za-z]+#|[A-Za-z]+\+\+|\d+(?:[.,:]\d+)*|(?:__)?[^\W\d]\w*(?:\.\w+)*(?:__)?|[^\W\d]+(?:['’][^\W\d]+)?",
    re.UNICODE,
)
APOSTROPHES: Final = str.maketrans({"’": "'", "‘": "'", "`": "'"})
CONTRACTED: Final = re.compile(r"\b(\w+?)n't\b")
IRREGULAR: Final = {"ca": "can", "wo": "will", "sha": "shall"}


def listed(words: str) -> frozenset[str]:
    """Returns the set of the space-separated words in ``words``."""
    return frozenset(words.split())


NEGATORS: Final = frozenset(word_lists()["negators"])
FUNCTION_WORDS: Final = listed("""
    a an the i me my you your we us our they them their he him his she her it its one this that these those is are was
    were be been being am do does did done have has had having can could will would shall should may might must to of in
    on at by for from with about as into than and or but if so too very just really please there here what which who
    whom whose when where why how any some ever s re ve ll d m t get got
""")
PARTICLE: Final = re.compile(
    r"\b(turn|switch|log|sign|opt|zoom|check|speed|slow|scale|warm|cool|put|take|plug|clock)"
    r"((?: \w+){0,4}?) (on|off|in|out|up|down)\b"
)
"""A verb with its particle, and up to four words between them."""

QUANTITY: Final = re.compile(r"\b(?:at (?:least|most)|(?:no )?(?:more|less|fewer) than|up to)\b")


@dataclass(frozen=True)
class ParsedQuestion:
    """A parsed question. ``text`` is the question as it was written, with plain apostrophes instead of typographic
    ones."""

    text: str

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """Words, numbers and identifiers in order, as they are written."""
        return tuple(TOKEN.findall(self.text))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words in order, lower-cased, "don't" as "do not", "turn it on" as "turn_on it"."""
        text = CONTRACTED.sub(lambda found: f"{IRREGULAR.get(found[1], found[1])} not", self.text.lower())
        text = text.replace("cannot", "can not")
        text = QUANTITY.sub(lambda found: found[0].replace(" ", "_"), text)
        return tuple(TOKEN.findall(PARTICLE.sub(r"\1_\3\2", text)))

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """The stems of ``words``, in order."""
        return tuple(map(stem, self.words))

    @cached_property
    def counts(self) -> Counter[str]:
        """The number of occurrences of each stem."""
        return Counter(self.stems)

    @cached_property
    def negations(self) -> int:
        """The number of negating words, such as "not" and "never"."""
        return sum(word in NEGATORS for word in self.words)


def parse_question(text: str) -> ParsedQuestion:
    """Returns the parsed question ``text``."""
    return ParsedQuestion(text.translate(APOSTROPHES))


def own_stems(one: ParsedQuestion, other: ParsedQuestion) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the stems that only ``one`` has, and those that only ``other`` has."""
    return frozenset(one.counts - other.counts), frozenset(other.counts - one.counts)


def stem(word: str) -> str:
    """Returns a word without the endings of plurals, verbs and adverbs: a key to compare by, not always a word."""
    if len(word) < 5 or not word.isalpha():
        return word[:-1] if len(word) == 4 and word.endswith("s") and not word.endswith("ss") else word
    for ending in ("ies", "ing", "ed", "es", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)] + ("y" if ending == "ies" else "")
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word[:-1] if len(word) > 4 and word[-1] == "e" else word
