"""``Bm25Index``: BM25 over rows of terms, of which rows can be added and removed at any time.

The variant is Lucene's: idf = ln(1 + (N - df + 0.5) / (df + 0.5)), never negative. Robertson and Zaragoza, "The
Probabilistic Relevance Framework: BM25 and Beyond" (2009). Scores are computed when a query comes, so an added row
costs its own terms alone; ``docs/decisions/31-retrieval.md`` compares it with bm25s.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

K1, B = 1.2, 0.75


class Bm25Index:
    """The index. Rows are numbered from 0 in the order in which they are added. A removed row keeps its number, and its
    score is 0. ``k1`` and ``b`` are BM25's parameters: saturation of term frequency, and normalisation by length."""

    def __init__(self, k1: float = K1, b: float = B) -> None:
        self._k1 = k1
        self._b = b
        self._postings: dict[str, tuple[array[int], array[float]]] = {}  # term → rows, frequencies
        self._removed: Counter[str] = Counter()  # term → removed rows that its postings still name
        self._lengths = array("f")
        self._total = 0.0  # terms of all rows that are not removed
        self._rows = 0  # that are not removed

    def __len__(self) -> int:
        """The number of rows, removed ones included."""
        return len(self._lengths)

    def add(self, terms: Sequence[str]) -> int:
        """Adds a row and returns its number."""
        row = len(self._lengths)
        for term, count in Counter(terms).items():
            rows, counts = self._postings.setdefault(term, (array("I"), array("f")))
            rows.append(row)
            counts.append(count)
        self._lengths.append(len(terms))
        self._total += len(terms)
        self._rows += 1
        return row

    def remove(self, row: int, terms: Sequence[str]) -> None:
        """Removes a row. ``terms`` are the terms with which it was added."""
        self._removed.update(set(terms))
        self._lengths[row] = -1.0
        self._total -= len(terms)
        self._rows -= 1

    def scores(self, query: Sequence[str]) -> NDArray[np.float32]:
        """Returns the score of each row, float32 [rows]; 0 for a row without any term of ``query``."""
        lengths = np.array(self._lengths, np.float32)
        total = np.zeros(len(lengths), np.float32)
        if not self._rows:
            return total
        norms = self._k1 * (1 - self._b + self._b * lengths / max(self._total / self._rows, 1e-9))
        for term, times in Counter(query).items():
            if term not in self._postings:
                continue
            rows, counts = (np.array(each) for each in self._postings[term])
            df = len(rows) - self._removed[term]
            idf = np.log1p((self._rows - df + 0.5) / (df + 0.5))
            total[rows] += (times * idf * (self._k1 + 1)) * counts / (counts + norms[rows])
        total[lengths < 0] = 0
        return total
