"""The queries of a step cut into tiles, on the host: which programs of the attention kernels compute which rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PADDING = -1
"""The sequence of a tile that is not there."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """[tiles, 2] int32 each: sequence, and first of its rows, as ``PagedPlan`` has them."""

    few: NDArray[np.int32]
    others: NDArray[np.int32]


def queries_per_tile(rows: int, heads: int, kv_heads: int) -> int:
    """Queries that a tile of ``rows`` has room for: the heads that share keys are rows of one tile."""
    return max(1, rows // (heads // kv_heads))


def most_tiles(tokens: int, sequences: int, queries: int) -> int:
    """No step of so many tokens of so many sequences has more tiles of ``queries``."""
    return min(tokens, (tokens + min(sequences, tokens) * (queries - 1)) // queries)


def tiles_of(
    counts: Sequence[int] | NDArray[np.int32],
    lengths: Sequence[int] | NDArray[np.int32],
    few_queries: int,
    queries: int,
    few_size: int,
    size: int,
) -> Tiles:
    """Tiles of sequences with ``counts`` rows each (0: none), padded to ``few_size`` and ``size``.

    Those with at most ``few_queries`` rows are one tile of few queries; all others are cut into tiles of ``queries``.
    ``lengths``, as in ``PagedPlan``, put those with the most keys first, so that no long one is left to the end.
    Raises ValueError if there are more than the sizes allow.
    """
    rows = np.asarray(counts, dtype=np.int64)
    seen = np.asarray(lengths, dtype=np.int64)
    few = np.flatnonzero((rows > 0) & (rows <= few_queries))
    many = np.flatnonzero(rows > few_queries)
    pieces = -(-rows[many] // queries)
    sequences = np.repeat(many, pieces)
    firsts = (np.arange(len(sequences)) - np.repeat(pieces.cumsum() - pieces, pieces)) * queries
    keys = seen[sequences] - rows[sequences] + np.minimum(firsts + queries, rows[sequences])
    return Tiles(
        _padded(few, np.zeros_like(few), seen[few], few_size, "few queries"),
        _padded(sequences, firsts, keys, size, "many queries"),
    )


def _padded(
    sequences: NDArray[np.int64], firsts: NDArray[np.int64], keys: NDArray[np.int64], size: int, what: str
) -> NDArray[np.int32]:
    if len(sequences) > size:
        raise ValueError(f"{len(sequences)} tiles of {what}, where {size} were planned")
    order = np.argsort(-keys, kind="stable")
    tiles = np.full((size, 2), (PADDING, 0), dtype=np.int32)
    tiles[: len(order)] = np.stack((sequences, firsts), 1)[order]
    return tiles
