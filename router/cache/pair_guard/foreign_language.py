"""Questions in other languages than English, in which the guard's lists and the pair scorer know no opposites.

"¿Cómo activo el modo oscuro?" and "¿Cómo desactivo el modo oscuro?" score like paraphrases, and an encoder with an
English vocabulary reads two Chinese questions as the same unknown characters.
"""

from __future__ import annotations

from typing import Final

from router.cache.pair_guard.parsed_question import ParsedQuestion
from router.cache.pair_guard.word_lists import word_lists

ENGLISH: Final = frozenset(word_lists()["english"])
FOREIGN: Final = frozenset(word_lists()["foreign"])


def is_foreign(text: ParsedQuestion) -> bool:
    """Returns whether a question has more words of other languages than of English: common words, and those with other
    letters than a to z. A question of names and technical terms alone has none of either, and is not foreign."""
    words = [part for word in text.words for part in word.split("_")]
    english = sum(word in ENGLISH for word in words)
    foreign = sum(word in FOREIGN or not word.isascii() for word in words)
    return foreign > english


def either_foreign(one: ParsedQuestion, other: ParsedQuestion) -> bool:
    """Returns whether one of the questions is foreign, and they have not the same words."""
    return one.words != other.words and (is_foreign(one) or is_foreign(other))
