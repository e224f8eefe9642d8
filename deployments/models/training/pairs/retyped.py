"""A text as another person would type it: slips, case, contractions, what is put round a question."""

from __future__ import annotations

import random
import re
from typing import Final

from deployments.models.training.pairs.wording import AROUND, couples

CONTRACTIONS: Final = (
    ("what is", "what's"),
    ("do not", "don't"),
    ("does not", "doesn't"),
    ("is not", "isn't"),
    ("cannot", "can't"),
    ("i am", "i'm"),
    ("it is", "it's"),
    ("are not", "aren't"),
    ("how is", "how's"),
    ("will not", "won't"),
    ("you", "u"),
    ("are", "r"),
    ("please", "pls"),
    ("because", "cuz"),
    ("and", "&"),
    ("without", "w/o"),
    ("with", "w/"),
)
SYNONYMS: Final = couples("synonyms")


def retyped(text: str, rng: random.Random) -> str:
    """Returns ``text`` with one to three changes that leave the question what it is."""
    for change in rng.sample((slip, lowered, unpunctuated, contracted, framed, worded), rng.randint(1, 3)):
        text = change(text, rng)
    return text


def slip(text: str, rng: random.Random) -> str:
    """Two letters exchanged, one left out or doubled, inside a long word without capitals."""
    words = list(re.finditer(r"\b[a-z]{5,}\b", text))
    if not words:
        return text
    word = rng.choice(words)
    place = rng.randint(word.start() + 1, word.end() - 3)
    here, after = text[place], text[place + 1]
    middle = rng.choice((after + here, here, here + here + after))
    return text[:place] + middle + text[place + 2 :]


def lowered(text: str, rng: random.Random) -> str:
    return text.lower() if rng.random() < 0.85 else text.upper()


def unpunctuated(text: str, rng: random.Random) -> str:
    return text.rstrip("?.! ") + rng.choice(("", "", "??", "?", " ?", "..."))


def contracted(text: str, rng: random.Random) -> str:
    for long, short in rng.sample(CONTRACTIONS, len(CONTRACTIONS)):
        changed = re.sub(rf"\b{long}\b", short, text, count=1, flags=re.I)
        if changed != text:
            return changed
    return text


def framed(text: str, rng: random.Random) -> str:
    return rng.choice(AROUND).replace("{x}", text)


def worded(text: str, rng: random.Random) -> str:
    """A synonym in the place of a word."""
    for pair in rng.sample(SYNONYMS, len(SYNONYMS)):
        for one, other in (pair, pair[::-1]):
            changed = re.sub(rf"\b{one}\b", other, text, count=1)
            if changed != text:
                return changed
    return text
