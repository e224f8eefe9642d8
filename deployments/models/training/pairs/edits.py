"""Edits of a question that make another question of it: a number, a name, a negation, a direction, one word.

Each edit is a function of a text and a random generator that returns the edited text, or None where it does not apply.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Final

from deployments.models.training.pairs.wording import FAMILIES, OPPOSITES, WORDS

Edit = Callable[[str, random.Random], str | None]

NUMBER: Final = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*(?![\w])")
NUMBER_WORDS: Final = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty")
NAME: Final = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b")
WORD: Final = re.compile(r"[A-Za-z]{4,}")
FROM_TO: Final = re.compile(r"\bfrom ((?:\w+ ){0,2}?\w+) to ((?:\w+ ){0,2}?\w+)(?=[?.,!]|$| in | by | on | for )")
TO: Final = re.compile(r"\b([A-Z]\w+) (to|into|than|over|against|before|after) ([A-Z]\w+)\b")
AUXILIARY: Final = re.compile(
    r"\b(is|are|was|were|can|could|should|would|will|does|do|did|has|have|must|may|might)\b(?! not|n't)(?= \w)", re.I
)
NOT: Final = re.compile(
    r"(?:\b(is|are|was|were|could|should|would|does|do|did|has|have)(?:n't|n’t| not)|\b(can)(?:'t|’t|not| not))\b", re.I
)
SMALL_WORDS: Final[frozenset[str]] = frozenset(WORDS["small_words"])


def edit_number(text: str, rng: random.Random) -> str | None:
    """Another number in the place of one."""
    found = list(NUMBER.finditer(text))
    if found:
        place = rng.choice(found)
        return text[: place.start()] + other_number(place.group(), rng) + text[place.end() :]
    word = next((word for word in NUMBER_WORDS if re.search(rf"\b{word}\b", text)), None)
    return word and re.sub(rf"\b{word}\b", rng.choice([w for w in NUMBER_WORDS if w != word]), text, count=1)


def other_number(number: str, rng: random.Random) -> str:
    """Returns a number near ``number`` or of its length, never itself."""
    digits = number.replace(",", "")
    if "." in digits or len(digits) > 9:
        spots = [place for place, letter in enumerate(number) if letter.isdigit()]
        place = rng.choice(spots)
        return number[:place] + rng.choice([d for d in "0123456789" if d != number[place]]) + number[place + 1 :]
    value = int(digits)
    near = [value + 1, max(0, value - 1), value + 2, value * 2 + 1, value * 10 + 10, value + rng.randint(3, 30)]
    return str(rng.choice([each for each in near if each != value]))


def edit_family(text: str, rng: random.Random) -> str | None:
    """Another word of the same kind: place, weekday, unit, programming language, colour, …"""
    order = list(FAMILIES)
    rng.shuffle(order)
    for family in order:
        members = FAMILIES[family]
        found = [word for word in members if re.search(rf"(?<![\w+#]){re.escape(word)}(?![\w+#])", text)]
        if family == "coding":
            found = [word for word in found if word not in ("R", "Go", "Swift")]
        if family == "quantifiers":
            found = [word for word in found if word in ("all", "some", "most", "many")]
        if found:
            word = rng.choice(found)
            other = rng.choice([each for each in members if each not in found])
            return re.sub(rf"(?<![\w+#]){re.escape(word)}(?![\w+#])", other, text)
    return None


def edit_opposite(text: str, rng: random.Random) -> str | None:
    """The opposite of a word: enable and disable, best and worst, before and after."""
    lowered = text.lower()
    found = [
        (one, other)
        for pair in OPPOSITES
        for one, other in (pair, pair[::-1])
        if one in lowered and re.search(rf"\b{re.escape(one)}\b", lowered)
    ]
    if not found:
        return None
    one, other = rng.choice(found)
    return re.sub(rf"\b{re.escape(one)}\b", lambda m: alike_case(other, m.group()), text, count=1, flags=re.I)


def alike_case(word: str, model: str) -> str:
    return word[0].upper() + word[1:] if model[:1].isupper() else word


def edit_negation(text: str, rng: random.Random) -> str | None:
    """With a "not", or without the one that it has."""
    if NOT.search(text):
        return NOT.sub(lambda m: m.group(1) or m.group(2), text, count=1)
    auxiliary = AUXILIARY.search(text)
    if not auxiliary:
        return None
    verb = auxiliary.group()
    form = rng.choice(("short", "not", "subject"))
    if form == "short" and verb.lower() not in ("may", "might"):
        short = {"can": "can't", "will": "won't"}.get(verb.lower(), verb.lower() + "n't")
        return text[: auxiliary.start()] + alike_case(short, verb) + text[auxiliary.end() :]
    subject = re.match(r" (?:I|you|we|they|he|she|it|one|people|someone|\w+s)\b", text[auxiliary.end() :])
    place = auxiliary.end() + (subject.end() if subject else 0)
    return text[:place] + " not" + text[place:]


def edit_direction(text: str, rng: random.Random) -> str | None:
    """The two ends of "from A to B", "A to B", "A than B" and the like the other way round."""
    found = FROM_TO.search(text)
    if found:
        return text[: found.start()] + f"from {found[2]} to {found[1]}" + text[found.end() :]
    found = TO.search(text)
    if not found or found[1].lower() in SMALL_WORDS or found[1] == found[3]:
        return None
    return text[: found.start()] + f"{found[3]} {found[2]} {found[1]}" + text[found.end() :]


class NameSwaps:
    """Another name in the place of a name, drawn from those that stand in the training questions."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def __call__(self, text: str, rng: random.Random) -> str | None:
        found = NAME.findall(text)
        if not found:
            return None
        name, other = rng.choice(found), rng.choice(self._names)
        return None if other in text else re.sub(rf"\b{name}\b", other, text)


class WordSwaps:
    """One word for another with which it makes a contradiction in a data set."""

    def __init__(self, swaps: Mapping[str, list[str]]) -> None:
        self._swaps = swaps

    def __call__(self, text: str, rng: random.Random) -> str | None:
        found = [word for word in WORD.findall(text) if word in self._swaps]
        if not found:
            return None
        word = rng.choice(found)
        return re.sub(rf"\b{word}\b", rng.choice(self._swaps[word]), text, count=1)


def exchange_words(text: str, rng: random.Random) -> str | None:
    """Two content words of the text in each other's place, as in PAWS. None if they are next to each other."""
    found = [m for m in WORD.finditer(text) if m.group().lower() not in SMALL_WORDS]
    capital = [m for m in found if m.group()[0].isupper() and m.start()]
    pool = capital if len(capital) > 1 and rng.random() < 0.7 else [m for m in found if m.group().islower()]
    if len(pool) < 2:
        return None
    one, other = sorted(rng.sample(pool, 2), key=lambda m: m.start())
    between = text[one.end() : other.start()].split()
    if one.group() == other.group() or not between or ({"and", "or"} & set(between) and len(between) < 3):
        return None
    if one.group()[-3:] != other.group()[-3:] and not one.group()[0].isupper() and rng.random() < 0.7:
        return None  # words with like endings are mostly of one class, so that the sentence stays a sentence
    return text[: one.start()] + other.group() + text[one.end() : other.start()] + one.group() + text[other.end() :]
