"""``CharacterGrams``: what the character n-grams of a request say, where its words are rare, misspelt, or not parted by
spaces. Pure.

Runs of 1 to 4 characters are hashed to buckets in a few passes over the whole text, and the weights of all are added up
at once. So they cost little more for a long text than for a short one. Subwords in a linear classifier are the idea of
fastText (Joulin et al. 2017).
"""

from __future__ import annotations

import base64
import math
import re
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

LONGEST = 4  # characters of a run
GRAM_BITS = 15
GRAM_BUCKETS = 1 << GRAM_BITS
LARGEST = 127  # of a weight, in units of ``scale``

_DIGIT = re.compile(r"\d")
_MIX = np.uint32(0x9E3779B1)  # an odd number near 2^32 divided by the golden ratio (Knuth's multiplicative hash)
_FOLD = np.uint32(15)  # bits by which high bits are brought down between two multiplications


def gram_buckets(text: str) -> npt.NDArray[np.uint16]:
    """Returns the bucket, 0 to GRAM_BUCKETS - 1, of every run of 1 to LONGEST characters in ``text``.

    Letters are lower-cased, and every digit counts as 0. A line break is put before and behind the text.
    """
    said = "\n" + _DIGIT.sub("0", text.lower()) + "\n"
    characters = np.frombuffer(said.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    hashes = np.zeros(len(characters) + 1, dtype=np.uint32)
    found = []
    for length in range(1, min(LONGEST, len(characters)) + 1):
        hashes = (hashes[:-1] ^ characters[length - 1 :]) * _MIX  # each run is the one before it and a character more
        hashes ^= hashes >> _FOLD
        found.append((hashes * _MIX >> np.uint32(32 - GRAM_BITS)).astype(np.uint16))
    return np.concatenate(found)


@dataclass(frozen=True, slots=True)
class CharacterGrams:
    """A weight for every bucket: a signed byte of ``weights``, times ``scale``, in log-odds. No bytes: none has one."""

    scale: float = 0.0
    weights: bytes = b""

    def odds(self, grams: bytes) -> float:
        """Returns the sum of the weights of ``grams``, which are buckets as bytes, divided by the square root of their
        number."""
        if not self.weights or not grams:
            return 0.0
        places = np.frombuffer(grams, dtype=np.uint16)
        total = int(np.frombuffer(self.weights, dtype=np.int8)[places].sum(dtype=np.int64))
        return self.scale * total / math.sqrt(len(places))

    @classmethod
    def rounded(cls, weights: npt.NDArray[np.float64]) -> Self:
        """Returns ``weights``, a number per bucket, as bytes."""
        scale = float(np.abs(weights).max()) / LARGEST or 1.0
        return cls(scale, np.rint(weights / scale).astype(np.int8).tobytes())

    def to_text(self) -> str:
        """Returns the weights as text (base64)."""
        return base64.b64encode(self.weights).decode()

    @classmethod
    def from_text(cls, scale: float, text: str) -> Self:
        """Returns the weights in ``text``. Raises ValueError unless there are none, or one for each bucket."""
        weights = base64.b64decode(text, validate=True)
        if len(weights) not in (0, GRAM_BUCKETS):
            raise ValueError(f"there must be a weight for each of the {GRAM_BUCKETS} buckets")
        return cls(scale, weights)


NO_GRAMS = CharacterGrams()
