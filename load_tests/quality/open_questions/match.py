"""Words and phrases, found in an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

WORD = re.compile(r"\w+(?:['’-]\w+)*")


def words(text: str) -> list[str]:
    """Words in small letters; an apostrophe or a hyphen within one is part of it."""
    return [word.replace("’", "'") for word in WORD.findall(text.casefold())]


def mentions(text: str, phrase: str) -> bool:
    """Whether ``phrase`` stands in ``text`` as words of its own. Capitals, and signs and spaces between the words, are
    free. A word that ends in ``*`` stands for all that begin so: "wash*" for "washing"."""
    return _pattern(phrase).search(text.casefold().replace("’", "'")) is not None


def mentioned(text: str, phrases: Iterable[str]) -> int:
    """How many of ``phrases`` stand in ``text``."""
    return sum(mentions(text, phrase) for phrase in phrases)


def without(text: str, question: str) -> str:
    """``text`` less every copy of ``question``: to repeat a question is no answer to it."""
    copy = r"\W+".join(map(re.escape, WORD.findall(question)))
    return re.sub(rf"(?<!\w){copy}(?!\w)[^\w\s]*", " ", text, flags=re.IGNORECASE)


@lru_cache(maxsize=4096)
def _pattern(phrase: str) -> re.Pattern[str]:
    parts = (re.escape(word.rstrip("*")) + (r"\w*" if word.endswith("*") else "") for word in phrase.casefold().split())
    return re.compile(r"(?<!\w)" + r"\W+".join(parts) + r"(?!\w)")
