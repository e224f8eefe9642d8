"""Near-duplicates across splits, found by MinHash (Broder 1997) over words in threes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from datasketch import MinHash, MinHashLSH

from deployments.models.training.safety.example import Example

PERMUTATIONS = 64
SIMILARITY = 0.6  # Jaccard, from which on two texts are near-duplicates
WORD = re.compile(r"\w+")


def shingles(text: str) -> list[bytes]:
    """The lower-cased words of ``text`` in threes; all of them as one where there are fewer."""
    words = WORD.findall(text.lower())
    return [" ".join(words[start : start + 3]).encode() for start in range(max(1, len(words) - 2))]


def signature(text: str) -> MinHash:
    minhash = MinHash(num_perm=PERMUTATIONS, seed=1)
    minhash.update_batch(shingles(text))
    return minhash


class NearDuplicates:
    """Finds texts that are near-duplicates of the given ones."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._index = MinHashLSH(threshold=SIMILARITY, num_perm=PERMUTATIONS)
        for place, text in enumerate(dict.fromkeys(texts)):
            self._index.insert(place, signature(text))

    def __contains__(self, text: str) -> bool:
        return bool(self._index.query(signature(text)))


def without_near_duplicates(examples: Sequence[Example], kept_apart: Iterable[str]) -> list[Example]:
    """Returns the examples of which no near-duplicate is in ``kept_apart``, each text once."""
    known = NearDuplicates(kept_apart)
    return [example for example in {item.text: item for item in examples}.values() if example.text not in known]
