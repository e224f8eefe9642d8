"""``HiddenStates``: what an encoder or a decoder makes of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """The last hidden states of B sequences, which have T tokens in all.

    ``rows``: float32 [T, hidden], without padding. ``starts`` and ``lengths``: [B], the first row and the number of
    rows of each sequence.
    """

    rows: NDArray[np.float32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]

    def first(self) -> NDArray[np.float32]:
        """Returns the state of each sequence's first token, float32 [B, hidden]."""
        return self.rows[self.starts]

    def last(self) -> NDArray[np.float32]:
        """Returns the state of each sequence's last token, float32 [B, hidden]."""
        states: NDArray[np.float32] = self.rows[self.starts + self.lengths - 1]
        return states

    def mean(self) -> NDArray[np.float32]:
        """Returns the mean over each sequence's tokens, float32 [B, hidden]."""
        sums: NDArray[np.float32] = np.add.reduceat(self.rows, self.starts, axis=0)
        means: NDArray[np.float32] = (sums / self.lengths[:, None]).astype(np.float32)
        return means

    def mean_within(self, parts: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
        """Returns the mean over a part of each sequence's tokens, float32 [B, hidden]. ``parts`` has, for each
        sequence, the index of the part's first token and of the first one after it. Raises ValueError for a part that
        is empty or not within its sequence."""
        means = np.empty((len(self.lengths), self.rows.shape[1]), np.float32)
        for place, (start, length, (first, end)) in enumerate(zip(self.starts, self.lengths, parts, strict=True)):
            if not 0 <= first < end <= length:
                raise ValueError(f"tokens {first} to {end} are no part of a sequence of {length}")
            means[place] = self.rows[start + first : start + end].mean(axis=0)
        return means
