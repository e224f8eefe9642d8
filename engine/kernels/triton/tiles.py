"""Cuts the queries of a step into tiles, on the host: each tile is computed by one program of the attention kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PADDING = -1
"""The sequence of a tile that is not there."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tiles of a step, int32 [tiles, 2] each: the sequence, and the tile's first row in it, as in ``PagedPlan``."""

    few: NDArray[np.int32]
    others: NDArray[np.int32]


def queries_per_tile(rows: int, heads: int, kv_heads: int) -> int:
    """Returns the number of queries in a tile of ``rows`` rows. The query heads that share a KV head are rows of one
    tile."""
    return max(1, rows // (heads // kv_heads))


def most_tiles(tokens: int, sequences: int, queries: int) -> int:
    """Returns the maximum number of tiles of ``queries`` queries in a step with ``tokens`` tokens of ``sequences``
    sequences."""
    return min(tokens, (tokens + min(sequences, tokens) * (queries - 1)) // queries)


def tiles_of(
    counts: Sequence[int] | NDArray[np.int32],
    lengths: Sequence[int] | NDArray[np.int32],
    few_queries: int,
    queries: int,
    few_size: int,
    size: int,
) -> Tiles:
    """Returns the tiles of sequences with ``counts`` rows each (0: none), padded to ``few_size`` and ``size`` tiles.

    A sequence with at most ``few_queries`` rows is one tile of few queries; all others are cut into tiles of
    ``queries`` queries. Tiles are sorted by ``lengths`` (as in ``PagedPlan``), those with the most keys first, so that
    no long tile starts last. Raises ValueError if there are more than the sizes allow.
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
