"""``nearest_by_numpy``: finds what ``scan.c`` finds, where that cannot be compiled. Pure.

The same numbers and choices as in scan.c: all sums are of whole numbers, and of rows that are equally near those are
kept that come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.cache.row_block import CHUNK, GROUP, RowBlock
from cluster.cache.scan_sizes import ScanSizes
from cluster.cache.sign_bits import SignBits

PLANES = 14
SAMPLED = 64
MAX_WEIGHT = 15
MAX_DISTANCE = 16_383


def nearest_by_numpy(
    blocks: Sequence[RowBlock],
    rows: int,
    bits: SignBits,
    query: NDArray[np.int8],
    count: int,
    sizes: ScanSizes,
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Returns what ``RowScan.nearest`` does."""
    room = len(blocks[0].codes)
    kept: NDArray[np.int64] = np.arange(rows)
    if rows > sizes.exact:
        signs, weights = _weighed(bits, query)
        near = sizes.kept(rows)
        if rows > 2 * near:
            kept = _near(_first_distances(blocks, rows, signs, weights), near)
        stored = np.stack([blocks[row // room].signs[row % room] for row in kept.tolist()])
        differ = np.unpackbits(stored.view(np.uint8), axis=1) ^ signs
        kept = kept[_least(differ.astype(np.float32) @ weights.astype(np.float32), sizes.exact)]
    codes = np.stack([blocks[row // room].codes[row % room] for row in kept.tolist()]).astype(np.float32)
    lengths = np.array([blocks[row // room].lengths[row % room] for row in kept.tolist()], np.float32)
    cosines = np.asarray(codes @ query.astype(np.float32) / (lengths * _length(query)), np.float32)
    order = np.argsort(-cosines, kind="stable")[:count]
    return kept[order].astype(np.uint32), cosines[order]


def _weighed(bits: SignBits, query: NDArray[np.int8]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns the signs of the query, 0 or 1, and the weight of each, both [64 words]."""
    turned = bits.turned(query[None])[0].astype(np.int64)
    sizes, most = np.abs(turned), min(MAX_WEIGHT, MAX_DISTANCE // len(turned))
    largest = max(1, int(sizes.max()))
    return (turned > 0).astype(np.uint8), (2 * sizes * most + largest) // (2 * largest)


def _first_distances(
    blocks: Sequence[RowBlock], rows: int, signs: NDArray[np.uint8], weights: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Returns the distance of each row by the groups of signs that weigh most, uint8 [rows]."""
    groups = weights.reshape(-1, GROUP)
    chosen = np.argsort(-(groups**2).sum(axis=1), kind="stable")[:PLANES]
    values = np.arange(1 << GROUP)[:, None] >> np.arange(GROUP)[::-1] & 1  # the signs of each value of a group
    differ = values[None] ^ signs.reshape(-1, GROUP)[chosen][:, None]  # [planes, values, signs]
    sums = (differ * groups[chosen][:, None]).sum(axis=2)
    tables = (255 * sums // max(1, int(groups[chosen].sum()))).astype(np.uint8)
    distances = np.empty((sum(block.planes.shape[1] for block in blocks) * 2 // CHUNK, 2, CHUNK // 2), np.uint8)
    first = 0
    for block in blocks:
        halves = distances[first : first + block.planes.shape[1] * 2 // CHUNK]
        first += len(halves)
        halves[:] = 0
        for table, plane in zip(tables, block.planes[chosen], strict=True):
            both = plane.reshape(-1, CHUNK // 2)
            halves[:, 0] += table[both & 15]
            halves[:, 1] += table[both >> GROUP]
    return distances.reshape(-1)[:rows]


def _near(distances: NDArray[np.uint8], wanted: int) -> NDArray[np.int64]:
    """Returns about the ``wanted`` nearest rows: those within a distance that a sample tells, unless many more or far
    fewer are."""
    sample = np.concatenate([distances[first : first + CHUNK] for first in range(0, len(distances), CHUNK * SAMPLED)])
    sums = np.cumsum(np.bincount(sample, minlength=256))
    last = int(np.searchsorted(sums, max(1, wanted // SAMPLED)))
    kept = np.flatnonzero(distances <= min(last, 255))
    return kept if wanted <= 2 * len(kept) <= 4 * wanted else _least(distances, wanted)


def _least(distances: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Returns the places of the ``count`` smallest, in their order; of equal ones the first."""
    return np.sort(np.argsort(distances, kind="stable")[:count])


def _length(vector: NDArray[np.int8]) -> np.float32:
    """Returns the length of a vector, 1 for that of zeros: its cosines are 0."""
    length = np.sqrt(np.float32((vector.astype(np.int64) ** 2).sum()))
    return length if length > 0 else np.float32(1)
