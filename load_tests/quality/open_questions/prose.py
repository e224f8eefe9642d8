"""Whether a text reads like English prose, by what a few counts can tell: enough to see through babble, no more."""

from __future__ import annotations

import re
from itertools import pairwise

from load_tests.quality.open_questions.match import WORD, words

ARTICLES_AND_THE_LIKE = "a an the my your its our their every"
OTHER_FUNCTION_WORDS = (
    "i you he she it we they me him her his us them this that these those who which what when where why how there here "
    "and or but so because if as than while though although of in on at to from by for with about into over after "
    "before between through during without up out off is am are was were be been being do does did have has had can "
    "could will would shall should may might must no not also very more most some any all each both many much such "
    "other another one it's i'm you're don't that's let's i'd i'll we're can't then too just only"
)
NOUNS_TOO = "one other most more many very will can being might must such then both only while i me up out"
DETERMINERS = frozenset(ARTICLES_AND_THE_LIKE.split())
FUNCTION_WORDS = DETERMINERS | frozenset(OTHER_FUNCTION_WORDS.split())

# After "the" or "my" none of these comes, nor the end of a sentence (""). Words that also are nouns or adjectives
# ("might", "other", "one") may.
NEVER_AFTER_DETERMINER = (FUNCTION_WORDS - frozenset(NOUNS_TOO.split()) - {"every"}) | {""}

MIN_WORDS = 5
# Of English prose 40 to 60 % are function words. Lists and letters have fewer, short answers scatter.
MIN_FUNCTION_SHARE, MAX_FUNCTION_SHARE = 0.2, 0.75
MAX_GAP = 11  # words in a row without a function word
# Of 40 words of prose some 28 are different; a loop has fewer.
MIN_DISTINCT_SHARE, LOOP_WINDOW = 0.4, 40
SENTENCE_END = re.compile(r"[.!?](?!\w)")


def is_prose(text: str) -> bool:
    """Sentences of English: enough function words, but not these alone, none where it cannot stand, and no loop."""
    said = words(text)
    if len(said) < MIN_WORDS or SENTENCE_END.search(text) is None or loops(text):
        return False
    function = [word in FUNCTION_WORDS for word in said]
    if not MIN_FUNCTION_SHARE <= sum(function) / len(said) <= MAX_FUNCTION_SHARE:
        return False
    gaps = "".join("f" if mark else "." for mark in function).split("f")
    return max(map(len, gaps)) <= MAX_GAP and not _misplaced(text)


def loops(text: str) -> bool:
    """Whether any stretch of ``LOOP_WINDOW`` words, or a shorter text of 12, is mostly repetition."""
    said = words(text)
    if len(said) < 12:
        return False
    starts = range(max(1, len(said) - LOOP_WINDOW + 1))
    return any(_distinct_share(said[start : start + LOOP_WINDOW]) < MIN_DISTINCT_SHARE for start in starts)


def _distinct_share(said: list[str]) -> float:
    return len(set(said)) / len(said)


def _misplaced(text: str) -> bool:
    """Whether a determiner stands before a word that cannot follow it, or ends a sentence. The last sentence may have
    been cut off anywhere. "A" within a sentence is a letter's name."""
    *whole, last = ([*WORD.findall(part), ""] for part in SENTENCE_END.split(text))
    pairs = [pair for sentence in [*whole, last[:-1]] for pair in pairwise(_decapitalised(sentence))]
    return any(word in DETERMINERS and following in NEVER_AFTER_DETERMINER for word, following in pairs)


def _decapitalised(sentence: list[str]) -> list[str]:
    return [sentence[0].casefold(), *sentence[1:]] if sentence else []
