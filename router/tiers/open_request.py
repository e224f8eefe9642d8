"""``OpenDetector``: says how likely a request is open, that is, none of the tasks that small tiers were trained for.

The inputs are terms of the request, hashed to buckets (Weinberger et al. 2009): words, pairs of words, ends of words,
pairs of their shapes, and where lines begin and end; and the signs of its size that the forecaster reads as well. Each
has a row of a table, and the sums of the rows are the hidden units of a small network. Several networks that were
fitted from different draws stand side by side in one table: their mean errs less than any one of them.

Numbers of the table are bytes, each times the ``steps`` of its column. ``deployments.models.training.routing`` fits
them. Pure.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

BUCKETS = 1 << 16  # a table of some 100,000 different terms; those that share a row differ in others
ENDS = 4  # words longer than this are also known by how they begin and end, such as "frequently" by "freq" and "tly"
LINE_WORDS = 3  # at the beginning of a line
MAX_LENGTH = 5  # of a number whose length still says something of its shape


def hashed(text: str) -> int:
    """Returns the checksum of ``text``. Unlike Python's hash, crc32 is the same in every process. Text from JSON may
    have unpaired surrogates."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def terms(words: Sequence[str], said: Sequence[str], past: Iterable[str], lines: Sequence[Sequence[str]]) -> set[str]:
    """Returns what the detector reads of a request.

    ``words`` are those of the last question as they are written, and ``said`` the same in lower case between two marks
    for the ends; ``past`` are the words of earlier turns, and ``lines`` those of the question's first and last line, in
    lower case.
    """
    found = {"w " + word for word in said} | {"p " + " ".join(pair) for pair in pairwise(said)}
    found.update("e " + word for word in past)
    found.update("k " + " ".join(pair) for pair in pairwise(map(_shape, words)))
    for word in {word.lower() for word in words if len(word) > ENDS}:
        found |= {"c " + word[:ENDS], "d " + word[1 - ENDS :]}
    for place, line in enumerate(lines):
        found |= {f"{place} {' '.join(line[:count])}" for count in range(1, LINE_WORDS + 1)}
        found.add(f"{place}e {' '.join(line[-2:])}")
    return found


def _shape(word: str) -> str:
    """Returns what kind of word ``word`` is: a number, a sign, or letters, large or small."""
    if word.isdecimal():
        return "0" * min(len(word), MAX_LENGTH)
    if not word[0].isalpha():
        return word
    if len(word) > 1 and word.isupper():
        return "AA"
    return "Aa" if word[0].isupper() else "aa"


@dataclass(frozen=True, slots=True)
class OpenDetector:
    """The fitted numbers. ``tier`` answers open requests.

    ``table`` has BUCKETS rows of one signed byte per hidden unit and one more, whose sum goes directly to the odds;
    ``steps`` is what a byte of each column counts. ``hidden_bias`` and ``hidden_weights`` have a number per unit. The
    bytes of terms are divided by the square root of their number, those of signs are not.
    """

    tier: str
    table: npt.NDArray[np.int8]
    steps: tuple[float, ...]
    hidden_bias: tuple[float, ...]
    hidden_weights: tuple[float, ...]
    bias: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpenDetector) and self.to_file() == other.to_file()

    def __hash__(self) -> int:
        return hash((self.tier, self.steps, self.bias))

    def odds(self, seen: frozenset[int], signs: Iterable[str]) -> float:
        """Returns the log-odds that a request is open, of its terms (buckets) and its signs."""
        units = len(self.hidden_weights)
        sums = self._sum(seen) / math.sqrt(len(seen) or 1) + self._sum(hashed("# " + sign) % BUCKETS for sign in signs)
        sums *= self.steps
        hidden = np.maximum(sums[:units] + self.hidden_bias, 0.0)
        return float(hidden @ np.array(self.hidden_weights) + sums[units] + self.bias)

    def _sum(self, buckets: Iterable[int]) -> npt.NDArray[np.float64]:
        sums: npt.NDArray[np.float64] = self.table[list(buckets)].sum(axis=0, dtype=np.int64).astype(np.float64)
        return sums

    def to_file(self) -> OpenDetectorFile:
        """Returns the detector as it stands in a file."""
        return OpenDetectorFile(
            tier=self.tier,
            buckets=BUCKETS,
            steps=self.steps,
            hidden_bias=self.hidden_bias,
            hidden_weights=self.hidden_weights,
            bias=self.bias,
            table=base64.b64encode(self.table.tobytes()).decode(),
        )


Numbers = tuple[Annotated[float, Field(allow_inf_nan=False)], ...]


class OpenDetectorFile(BaseModel):
    """The part of a forecaster's file that has the detector."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tier: str
    buckets: Literal[65536]  # must be BUCKETS, since the table is meaningless with another hash
    steps: Numbers
    hidden_bias: Numbers
    hidden_weights: Numbers
    bias: float = Field(allow_inf_nan=False)
    table: str

    def read(self) -> OpenDetector:
        """Returns the detector. Raises ValueError when the numbers do not fit each other."""
        units = len(self.hidden_weights)
        if len(self.hidden_bias) != units or len(self.steps) != units + 1:
            raise ValueError("open: hidden bias, hidden weights and steps must be of the same hidden units")
        packed = base64.b64decode(self.table, validate=True)
        if len(packed) != BUCKETS * (units + 1):
            raise ValueError(f"open: the table must have {BUCKETS} rows of {units + 1} bytes")
        table = np.frombuffer(packed, dtype=np.int8).reshape(BUCKETS, units + 1)
        return OpenDetector(self.tier, table, self.steps, self.hidden_bias, self.hidden_weights, self.bias)
