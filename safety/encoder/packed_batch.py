"""``PackedBatch``: sequences of token ids side by side, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A batch of B sequences with T tokens in all. The longest has S tokens. Only attention needs them padded.

    ``token_ids``: int64 [T]. ``positions``: int64 [T], from 0 in each sequence. ``lengths``: int32 [B].
    ``padded_rows``: int64 [B, S], the packed row of each position in the padded batch, 0 for padding.
    ``packed_places``: int64 [T], the position in the padded batch of each packed row, as an index into B x S.
    """

    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    lengths: NDArray[np.int32]
    padded_rows: NDArray[np.int64]
    packed_places: NDArray[np.int64]

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first packed row of each sequence, int64 [B]."""
        return np.cumsum(self.lengths, dtype=np.int64) - self.lengths

    def inputs(self) -> dict[str, NDArray[Any]]:
        """Returns the inputs of a graph by name."""
        return {
            "token_ids": self.token_ids,
            "positions": self.positions,
            "lengths": self.lengths,
            "padded_rows": self.padded_rows,
            "packed_places": self.packed_places,
        }

    def check(self, max_tokens: int, vocabulary: int) -> None:
        """Raises ValueError for a sequence of more than ``max_tokens`` tokens, and for ids outside the vocabulary."""
        if self.lengths.max() > max_tokens:
            raise ValueError(f"a sequence has {self.lengths.max()} tokens, of at most {max_tokens}")
        if self.token_ids.min() < 0 or self.token_ids.max() >= vocabulary:
            raise ValueError(f"token ids are from 0 to {vocabulary - 1}")

    def from_place(self, places: Sequence[int]) -> NDArray[np.bool_]:
        """Returns a mask, bool [T], of the tokens at or after the given index in their sequence. ``places`` has one
        index for each sequence."""
        return self.positions >= np.repeat(np.asarray(places, np.int64), self.lengths)


def packed(sequences: Sequence[Sequence[int]]) -> PackedBatch:
    """Returns the batch of ``sequences``. Raises ValueError if there is no sequence, and for an empty one."""
    lengths = np.fromiter(map(len, sequences), np.int32, len(sequences))
    if not lengths.size or not lengths.min():
        raise ValueError("a batch has at least one sequence, and a sequence at least one token")
    tokens, longest = int(lengths.sum()), int(lengths.max())
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(tokens, dtype=np.int64) - np.repeat(starts, lengths)
    places = np.repeat(np.arange(lengths.size, dtype=np.int64) * longest, lengths) + positions
    padded_rows = np.zeros(lengths.size * longest, np.int64)
    padded_rows[places] = np.arange(tokens)
    return PackedBatch(
        token_ids=np.fromiter(chain.from_iterable(sequences), np.int64, tokens),
        positions=positions,
        lengths=lengths,
        padded_rows=padded_rows.reshape(lengths.size, longest),
        packed_places=places,
    )
