"""``Forecaster``: predicts for each tier the chance that it answers a request correctly. Pure.

The inputs are the words of the request, hashed to buckets (Weinberger et al. 2009), and signs of its shape, such as the
number of digits. Each has a row of weights: some add up to the hidden units of a small network, the others directly to
the tiers' log-odds. To those of the last tier character n-grams add too (router/tiers/character_grams.py). Without
hidden units it is one logistic regression per tier. ``cheapest_within`` then chooses the cheapest tier whose chance is
close enough to the best one.

To choose before anything is generated, and to trade quality for cost by one number, is the idea of Hybrid LLM (Ding et
al. 2024) and RouteLLM (Ong et al. 2024). Their predictors are transformers or need embeddings. A sum of rows takes a
tenth of a millisecond.

``deployments.models.training.routing`` fits the weights to answers of the tiers and measures the result. A forecaster
is valid only for the tiers and the kinds of requests that it was fitted to.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.api import Conversation
from router.tiers.character_grams import NO_GRAMS, CharacterGrams, gram_buckets

BUCKETS = 4096  # hash buckets of words; about the number of distinct words in the training tasks
VOCABULARY = 1 << 24  # hash buckets in which a word is known or not: few words share one by chance
READ_CHARS = 6_000  # characters of a prompt that are read, from both its ends; the middle only counts as length
CHARS_PER_WORD = 8  # bounds the number of words that are read, so that text of single letters costs no more
EARLIER = 3  # one in EARLIER characters that are read is of earlier turns, the others of the last question

UNPARTED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, Kana and Han: no spaces part their words, so each character is read as a word."""
# Every alternative matches a bounded run without backtracking, so that any text takes one pass.
WORD = re.compile(rf"[^\W\d_{UNPARTED}]{{1,24}}|[{UNPARTED}]|\d{{1,24}}|[^\w\s]")
ITEM = re.compile(r"^[ \t]{0,8}(?:[-*•]|\d{1,3}[.)])[ \t]", re.MULTILINE)
OPERATORS = frozenset("+-*/×÷=<>%^")
CELLS, BRACKETS = "|\t;", "([{"
QUOTES = frozenset("\"'“”‘’`«»")

Text = str | Conversation


@dataclass(frozen=True, slots=True)
class Features:
    """The inputs of the forecaster: the buckets of a request's words, and signs of its shape such as ``digits=3``.
    ``vocabulary`` has the words of the last question except numbers, ``pairs`` its pairs of adjacent words, both hashed
    to VOCABULARY buckets. ``grams`` has the buckets of its character n-grams, two bytes each."""

    words: frozenset[int]
    signs: tuple[str, ...]
    vocabulary: frozenset[int] = frozenset()
    pairs: frozenset[int] = frozenset()
    grams: bytes = b""


@dataclass(frozen=True, slots=True)
class HiddenUnits:
    """The hidden units of the network, which are 0 where their sum is below 0 (ReLU). ``bias`` has a number per unit,
    ``weights`` a row per unit with one number per tier, in log-odds."""

    bias: tuple[float, ...] = ()
    weights: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Forecaster:
    """The fitted weights for ``tiers``, cheapest first.

    ``bias`` has a number per tier, in log-odds. ``signs`` and ``words`` map a sign and a bucket to its row, which has
    one number per hidden unit and then one per tier. The weights of words are divided by the square root of the number
    of the request's words, so that long requests do not get extreme chances.

    ``known`` has the words, and the pairs of words, of the tasks that small tiers were trained for. The share of a
    request's words and pairs that are not in ``known`` is a sign too: a small tier cannot answer a question about words
    that it was not trained on.

    ``grams`` adds what character n-grams say to the log-odds of the last tier, the one for open requests.

    The fit lowers the chances of the cheaper tiers, so that none is chosen by mistake.
    """

    tiers: tuple[str, ...]
    bias: tuple[float, ...]
    signs: Mapping[str, tuple[float, ...]]
    words: Mapping[int, tuple[float, ...]]
    about: Mapping[str, Any] = field(default_factory=dict)
    """How the forecaster was fitted, for people who read the file."""
    known: frozenset[int] = frozenset()
    hidden: HiddenUnits = HiddenUnits()
    grams: CharacterGrams = NO_GRAMS
    _network: _Network = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_network", _Network.of(self))

    def expect(self, seen: Features) -> tuple[float, ...]:
        """Returns the chance that each tier answers correctly, 0 to 1, in the order of ``tiers``."""
        signs = (*seen.signs, *unknown_signs(seen, self.known))
        *others, last = self._network.odds(signs, seen.words)
        return (*map(_chance, others), _chance(last + self.grams.odds(seen.grams)))

    def narrowed(self, tiers: Sequence[str]) -> Self:
        """Returns a forecaster for ``tiers`` only, in their order. Raises ValueError for a tier that this forecaster
        does not have."""
        units = len(self.hidden.bias)
        tier_places = [self.tiers.index(tier) for tier in tiers]
        row_places = [*range(units), *(units + place for place in tier_places)]
        has_last = tier_places[-1:] == [len(self.tiers) - 1]

        def chosen(row: Sequence[float], places: Sequence[int]) -> tuple[float, ...]:
            return tuple(row[place] for place in places)

        return replace(
            self,
            tiers=tuple(tiers),
            bias=chosen(self.bias, tier_places),
            signs={name: chosen(row, row_places) for name, row in self.signs.items()},
            words={word: chosen(row, row_places) for word, row in self.words.items()},
            hidden=replace(self.hidden, weights=tuple(chosen(row, tier_places) for row in self.hidden.weights)),
            grams=self.grams if has_last else NO_GRAMS,
        )

    def to_json(self) -> str:
        """Returns the forecaster as JSON. Weights are rounded to 3 decimals; rows that are then all 0 are left out."""
        fields = [
            '"format": 3',
            f'"about": {json.dumps(dict(self.about), indent=2)}',
            f'"tiers": {json.dumps(self.tiers)}',
            f'"buckets": {BUCKETS}',
            f'"bias": {json.dumps(_rounded(self.bias))}',
            f'"hidden bias": {json.dumps(_rounded(self.hidden.bias))}',
            f'"hidden weights": {json.dumps([_rounded(row) for row in self.hidden.weights])}',
            f'"signs": {_lines(self.signs)}',
            f'"words": {_lines({str(word): row for word, row in sorted(self.words.items())})}',
            f'"known": {json.dumps(sorted(self.known))}',
            f'"gram scale": {json.dumps(self.grams.scale)}',
            f'"grams": {json.dumps(self.grams.to_text())}',
        ]
        return "{\n" + ",\n".join(fields) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Returns the forecaster in ``text``, which is JSON as ``to_json`` writes it.

        Raises ValueError, naming the field, for any other text.
        """
        try:
            file = _File.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None
        hidden = HiddenUnits(file.hidden_bias, file.hidden_weights)
        tiers, units = len(file.tiers), len(hidden.bias)
        if len(hidden.weights) != units:
            raise ValueError(f"hidden weights: there must be a row for each of the {units} hidden units")
        widths: list[tuple[str, Iterable[Row], int]] = [
            ("bias", [file.bias], tiers),
            ("hidden weights", hidden.weights, tiers),
            ("signs", file.signs.values(), units + tiers),
            ("words", file.words.values(), units + tiers),
        ]
        for name, rows, width in widths:
            if any(len(row) != width for row in rows):
                raise ValueError(f"{name}: every row needs {width} numbers, for {tiers} tiers and {units} hidden units")
        try:
            grams = CharacterGrams.from_text(file.gram_scale, file.grams)
        except ValueError as error:
            raise ValueError(f"grams: {error}") from None
        return cls(file.tiers, file.bias, file.signs, file.words, file.about, file.known, hidden, grams)


Row = tuple[Annotated[float, Field(allow_inf_nan=False)], ...]


class _File(BaseModel):
    """The JSON file of a forecaster."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1, 2, 3]  # 1 has no hidden units, 2 no character n-grams
    about: dict[str, Any]
    tiers: tuple[str, ...] = Field(min_length=1)
    buckets: Literal[4096]  # must be BUCKETS, since the weights are meaningless with another hash
    bias: Row
    hidden_bias: Row = Field((), alias="hidden bias")
    hidden_weights: tuple[Row, ...] = Field((), alias="hidden weights")
    signs: dict[str, Row]
    words: dict[Annotated[int, Field(ge=0, lt=BUCKETS)], Row]
    known: frozenset[Annotated[int, Field(ge=0, lt=VOCABULARY)]] = frozenset()
    gram_scale: float = Field(0.0, alias="gram scale", allow_inf_nan=False)
    grams: str = ""


@dataclass(frozen=True, slots=True)
class _Network:
    """The weights of a forecaster as it computes with them. ``places`` maps a sign or a bucket to its row of ``table``;
    ``bias`` has the hidden units in front of the tiers, as rows have."""

    places: Mapping[int | str, int]
    table: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    hidden: npt.NDArray[np.float64]

    @classmethod
    def of(cls, forecaster: Forecaster) -> Self:
        """Returns the network of ``forecaster``."""
        tiers, units = len(forecaster.tiers), len(forecaster.hidden.bias)
        rows: dict[int | str, tuple[float, ...]] = dict(forecaster.signs.items())
        rows.update(forecaster.words.items())
        return cls(
            {key: place for place, key in enumerate(rows)},
            np.array(list(rows.values()), dtype=np.float64).reshape(len(rows), units + tiers),
            np.array([*forecaster.hidden.bias, *forecaster.bias], dtype=np.float64),
            np.array(forecaster.hidden.weights, dtype=np.float64).reshape(units, tiers),
        )

    def odds(self, signs: Iterable[str], words: frozenset[int]) -> list[float]:
        """Returns the log-odds of each tier."""
        share = 1 / math.sqrt(len(words) or 1)
        sums = self.bias + self._sum(signs) + share * self._sum(words)
        units = len(self.hidden)
        odds: list[float] = (sums[units:] + np.maximum(sums[:units], 0.0) @ self.hidden).tolist()
        return odds

    def _sum(self, keys: Iterable[int | str]) -> npt.NDArray[np.float64]:
        """Returns the sum of the rows of ``keys``; those without a row count as 0."""
        places = [place for key in keys if (place := self.places.get(key)) is not None]
        sums: npt.NDArray[np.float64] = self.table[places].sum(axis=0)
        return sums


def cheapest_within(expected: Sequence[float], tolerance: float) -> int:
    """Returns the index of the first chance in ``expected`` that is at most ``tolerance`` below the largest.

    ``expected`` has the chances of the tiers, cheapest first. A tolerance of 0 chooses the best tier, and the cheapest
    of equals. 1 always chooses the first.
    """
    enough = max(expected) - tolerance
    return next(place for place, chance in enumerate(expected) if chance >= enough)


def features(prompt: Text, read_chars: int = READ_CHARS) -> Features:
    """Returns the forecaster's inputs for ``prompt``.

    At most ``read_chars`` characters are read. The time is bounded by that and by the number of messages.
    """
    asked, earlier, earlier_chars, turns = _divide(prompt, read_chars // EARLIER)
    limit = read_chars - read_chars // EARLIER
    text = _ends(asked, limit)
    words = _ends(WORD.findall(text), limit // CHARS_PER_WORD)
    past = _ends(WORD.findall(earlier), read_chars // EARLIER // CHARS_PER_WORD)
    said = ["^", *map(_normal, words), "$"]
    spoken = {*said, *map(" ".join, pairwise(said)), *("<" + _normal(word) for word in past)}
    signs = (*_shape(text, words), f"length={_size(len(asked))}", f"earlier={_size(earlier_chars)}", f"turns={turns}")
    vocabulary = frozenset(_hash(word.lower()) % VOCABULARY for word in words if word[0].isalpha())
    pairs = frozenset(_hash(" ".join(pair)) % VOCABULARY for pair in pairwise(said) if not "".join(pair).isdecimal())
    return Features(frozenset(map(_bucket, spoken)), signs, vocabulary, pairs, gram_buckets(text).tobytes())


def unknown_signs(seen: Features, known: frozenset[int]) -> tuple[str, ...]:
    """Returns the signs for the words and the pairs of a request that are not in ``known``: the number of each, and
    their share of all its words or pairs. () if ``known`` is empty."""
    if not known:
        return ()
    words, pairs = len(seen.vocabulary - known), len(seen.pairs - known)
    return (
        f"unknown words={min(words, 8)}",
        f"unknown words of 8={8 * words // max(len(seen.vocabulary), 1)}",
        f"unknown pairs={min(pairs, 16)}",
        f"unknown pairs of 16={16 * pairs // max(len(seen.pairs), 1)}",
    )


def _shape(text: str, words: Sequence[str]) -> Iterator[str]:
    """Yields the signs of a task's size and kind: how many numbers, digits, lines, list items and so on it has.

    Every count up to a cap is a sign with a weight of its own, because the chances do not change linearly with it.
    """
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
    """Returns the question, the earlier text, the length of all earlier text, and the number of user turns (1 to 8).

    The question is the user's last message; all before it is earlier text, of which the last ``earlier_chars`` are
    returned.
    """
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
    """Returns ``text``, or its first and last ``limit // 2`` items if it is longer: tasks are stated at an end."""
    half = max(limit // 2, 1)
    return text if len(text) <= limit else text[:half] + text[-half:]


def _normal(word: str) -> str:
    """Returns a word in lower case. A number of several digits becomes as many zeros; a single digit stays."""
    return "0" * len(word) if len(word) > 1 and word.isdecimal() else word.lower()


def _bucket(word: str) -> int:
    """Returns the bucket of ``word``."""
    return _hash(word) % BUCKETS


def _hash(word: str) -> int:
    # Unlike Python's hash, crc32 is the same in every process. Text from JSON may have unpaired surrogates.
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def _size(count: int) -> int:
    """Returns the size class of a count, by powers of two: 0, 1, 2-3, 4-7 … become 0, 1, 2, 3 …, up to 16."""
    return min(count.bit_length(), 16)


def _chance(odds: float) -> float:
    return 1 / (1 + math.exp(-min(max(odds, -30.0), 30.0)))


def _lines(rows: Mapping[str, Sequence[float]]) -> str:
    """Returns a JSON object with a line per row, so that two versions of the file can be compared by diff."""
    rounded = ((name, _rounded(row)) for name, row in rows.items())
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rounded if any(row)) + "\n}"


def _rounded(row: Sequence[float]) -> list[float]:
    return [round(weight, 3) + 0.0 for weight in row]  # + 0.0: no -0.0
