"""How likely each tier is to answer a request right, learned from the tiers' own answers. Pure: text in, chances out.

One logistic head per tier reads the words of the request and a few signs of its shape; the cheapest tier whose chance
comes close enough to the best one answers. Predicting before anything is generated, and trading quality for cost by
one number, is the idea of Hybrid LLM (Ding et al. 2024) and RouteLLM (Ong et al. 2024). Their predictors are
transformers or need embeddings; a linear model over hashed words (Weinberger et al. 2009) takes a fraction of a
millisecond and can be read weight by weight.

The heads are fitted by ``deployments.models.training.routing``, which also says how well they do. They know the tiers
and the kinds of request that they were fitted to, and nothing of others.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.api import Conversation

BUCKETS = 4096  # words share weights when they collide; there are about as many words in a curriculum
READ_CHARS = 6_000  # of a prompt, from both its ends; what lies between is counted but not read
CHARS_PER_WORD = 8  # READ_CHARS in words: a text of single letters costs no more than prose
EARLIER = 3  # one part in three of what is read is of earlier turns, the rest of the question

# Each alternative takes a bounded run and none can give it back: one pass, whatever the text.
WORD = re.compile(r"[^\W\d_]{1,24}|\d{1,24}|[^\w\s]")
ITEM = re.compile(r"^[ \t]{0,8}(?:[-*•]|\d{1,3}[.)])[ \t]", re.MULTILINE)
OPERATORS = frozenset("+-*/×÷=<>%^")
CELLS, BRACKETS = "|\t;", "([{"
QUOTES = frozenset("\"'“”‘’`«»")

Text = str | Conversation


@dataclass(frozen=True, slots=True)
class Features:
    """What the heads see of a request: buckets of words, and signs of its shape such as ``digits=3``."""

    words: frozenset[int]
    signs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forecaster:
    """The fitted heads of ``tiers``, weakest first. Every row of weights has one number per tier, in that order.

    Weights are in log-odds. Those of words are shared out among the words of a request (each counts 1 / sqrt of their
    number), so that long requests are not certain ones.
    """

    tiers: tuple[str, ...]
    bias: tuple[float, ...]
    signs: Mapping[str, tuple[float, ...]]
    words: Mapping[int, tuple[float, ...]]
    about: Mapping[str, Any] = field(default_factory=dict)
    """How it was fitted, for readers of the file."""

    def expect(self, seen: Features) -> tuple[float, ...]:
        """The chance that each tier answers right, in [0, 1]."""
        odds = list(self.bias)
        _add(odds, (self.signs[sign] for sign in seen.signs if sign in self.signs), 1.0)
        share = 1 / math.sqrt(len(seen.words) or 1)
        _add(odds, (self.words[word] for word in seen.words if word in self.words), share)
        return tuple(map(_chance, odds))

    def to_json(self) -> str:
        """What ``from_json`` reads; rows without effect are left out, numbers are rounded to what matters."""
        fields = [
            '"format": 1',
            f'"about": {json.dumps(dict(self.about), indent=2)}',
            f'"tiers": {json.dumps(self.tiers)}',
            f'"buckets": {BUCKETS}',
            f'"bias": {json.dumps(_rounded(self.bias))}',
            f'"signs": {_lines(self.signs)}',
            f'"words": {_lines({str(word): row for word, row in sorted(self.words.items())})}',
        ]
        return "{\n" + ",\n".join(fields) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError, naming what is wrong, for anything but a file that ``to_json`` could have written."""
        try:
            file = _File.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None
        width = len(file.tiers)
        for name, rows in (("bias", {"": file.bias}), ("signs", file.signs), ("words", file.words)):
            if any(len(row) != width for row in rows.values()):
                raise ValueError(f"{name}: every row needs one number for each of the {width} tiers")
        return cls(file.tiers, file.bias, file.signs, file.words, file.about)


Row = tuple[Annotated[float, Field(allow_inf_nan=False)], ...]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1]
    about: dict[str, Any]
    tiers: tuple[str, ...] = Field(min_length=1)
    buckets: Literal[4096]  # BUCKETS: weights of another hash would be noise
    bias: Row
    signs: dict[str, Row]
    words: dict[Annotated[int, Field(ge=0, lt=BUCKETS)], Row]


def cheapest_within(expected: Sequence[float], tolerance: float) -> int:
    """The first of ``expected`` (by tier, weakest first) that is at most ``tolerance`` below the best.

    0 takes the best, and the cheapest of equals; 1 always takes the first.
    """
    enough = max(expected) - tolerance
    return next(place for place, chance in enumerate(expected) if chance >= enough)


def features(prompt: Text, read_chars: int = READ_CHARS) -> Features:
    """What the heads see of ``prompt``. Reads ``read_chars`` of it; its cost is bounded by that and by the number of
    messages, whatever the text."""
    asked, earlier, earlier_chars, turns = _divide(prompt, read_chars // EARLIER)
    limit = read_chars - read_chars // EARLIER
    text = _ends(asked, limit)
    words = _ends(WORD.findall(text), limit // CHARS_PER_WORD)
    past = _ends(WORD.findall(earlier), read_chars // EARLIER // CHARS_PER_WORD)
    said = ["^", *map(_normal, words), "$"]
    spoken = {*said, *map(" ".join, pairwise(said)), *("<" + _normal(word) for word in past)}
    signs = (*_shape(text, words), f"length={_size(len(asked))}", f"earlier={_size(earlier_chars)}", f"turns={turns}")
    return Features(frozenset(map(_bucket, spoken)), signs)


def _shape(text: str, words: Sequence[str]) -> Iterator[str]:
    """Signs of what makes a task large: many numbers, long ones, rows, items. Counts become classes of their own, up to
    a cap, because chances do not fall by the same step from 1 to 2 as from 5 to 6."""
    numbers = [len(word) for word in words if word.isdecimal()]
    marks = [word for word in words if len(word) == 1]
    yield f"numbers={min(len(numbers), 12)}"
    yield f"digits={min(max(numbers, default=0), 9)}"
    yield f"all digits={min(sum(numbers), 24)}"
    yield f"lines={min(len(text.splitlines()), 16)}"
    yield f"items={min(sum(1 for _ in ITEM.finditer(text)), 12)}"
    yield f"cells={_size(sum(map(text.count, CELLS)))}"
    yield f"commas={min(text.count(','), 12)}"
    yield f"operators={min(sum(mark in OPERATORS for mark in marks), 8)}"
    yield f"brackets={min(sum(map(text.count, BRACKETS)), 6)}"
    yield f"quotes={min(sum(mark in QUOTES for mark in marks), 8)}"
    yield f"names={min(sum(word[0].isupper() for word in words), 16)}"
    yield f"words={_size(len(words))}"


def _divide(prompt: Text, earlier_chars: int) -> tuple[str, str, int, int]:
    """The question; the last ``earlier_chars`` of what was said before it; how long all of that is; turns of the user
    (1 to 8)."""
    if isinstance(prompt, str):
        return prompt, "", 0, 1
    messages = prompt.messages
    questions = [place for place, message in enumerate(messages) if message.role == "user"]
    last = questions[-1] if questions else len(messages) - 1
    before = messages[: max(last, 0)]
    parts: list[str] = []
    room = earlier_chars
    for message in reversed(before):
        if room <= 0:
            break
        parts.append(message.content[-room:])
        room -= len(parts[-1]) + 1
    asked = messages[last].content if messages else ""
    return asked, "\n".join(reversed(parts)), sum(len(m.content) for m in before), min(max(len(questions), 1), 8)


Sliced = TypeVar("Sliced", str, list[str])


def _ends(text: Sliced, limit: int) -> Sliced:
    """``text`` (a string or a list), or its first and last parts if it is longer than ``limit``: what is wanted stands
    at one of its ends."""
    half = max(limit // 2, 1)
    return text if len(text) <= limit else text[:half] + text[-half:]


def _normal(word: str) -> str:
    """A word in lower case; a number as its length in digits, but single digits as they are ("in 3 words")."""
    return "0" * len(word) if len(word) > 1 and word.isdecimal() else word.lower()


def _bucket(word: str) -> int:
    # crc32 is the same in every process and version, which Python's own hash is not. JSON can spell half a surrogate.
    return zlib.crc32(word.encode("utf-8", "surrogatepass")) % BUCKETS


def _size(count: int) -> int:
    """Powers of two: 0, 1, 2-3, 4-7 … are 0, 1, 2, 3 …, up to 16."""
    return min(count.bit_length(), 16)


def _add(odds: list[float], rows: Iterator[tuple[float, ...]], share: float) -> None:
    for row in rows:
        for place, weight in enumerate(row):
            odds[place] += weight * share


def _chance(odds: float) -> float:
    return 1 / (1 + math.exp(-min(max(odds, -30.0), 30.0)))


def _lines(rows: Mapping[str, Sequence[float]]) -> str:
    """A JSON object with a line per row, so that a refitted file can be compared with the one before."""
    rounded = ((name, _rounded(row)) for name, row in rows.items())
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rounded if any(row)) + "\n}"


def _rounded(row: Sequence[float]) -> list[float]:
    return [round(weight, 3) + 0.0 for weight in row]  # + 0.0: no -0.0
