"""``RowScan``: finds the rows of a partition that are nearest to a query. Pure.

Three looks: at the first 128 sign bits of all rows, at all bits of those that are near by them, and at the 8-bit codes
of those that are nearest by their bits. ``scan.c`` takes them in one call; without a C compiler numpy does the same,
many times as slowly.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.cache.row_block import HEAD_WORDS, RowBlock
from cluster.cache.scan_library import NearestRows, scan_library
from cluster.cache.sign_bits import SignBits

CHUNK = 64  # rows that scan.c looks at together: a block has room for whole ones


class ScanSizes(NamedTuple):
    """How many rows a scan keeps. A partition of at most ``exact`` rows is compared as a whole, and ``exact`` rows of a
    larger one by their codes. About ``near`` rows, or 1 in ``share`` where that is more, are kept by their first bits;
    with a small ``near``, whose limit is estimated from few rows, fewer may be. ``block`` is the number of rows that
    lie together. ``exact`` and ``block`` are powers of two, ``exact`` is at least 64 and at most ``near``, and
    ``block`` is larger."""

    exact: int = 1024
    near: int = 8192
    share: int = 64
    block: int = 65_536

    def kept(self, rows: int) -> int:
        """Returns how many of ``rows`` are kept by their first bits."""
        return max(self.near, rows // self.share)


SIZES = ScanSizes()


class RowScan:
    """Searches the blocks of any partition with vectors of ``dimensions`` components. Not for several threads at once.
    ``library`` None: numpy."""

    def __init__(self, dimensions: int, sizes: ScanSizes, library: NearestRows | None) -> None:
        self.dimensions = dimensions
        self.sizes = sizes
        self.bits = SignBits(dimensions)
        self._library = library
        self._found = np.empty(0, np.uint64)  # row and distance, of those that are near

    def nearest(
        self, blocks: Sequence[RowBlock], addresses: NDArray[np.uint64], rows: int, query: NDArray[np.int8], count: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Returns at most ``count`` of the first ``rows`` rows and their cosines with ``query``, int8 [dimensions], the
        highest first. All blocks but a single one have room for ``sizes.block`` rows; ``addresses`` has theirs, uint64
        [blocks, 4]."""
        query = np.ascontiguousarray(query)
        bits = self.bits(query[None])[0] if rows > self.sizes.exact else np.zeros(self.bits.words, np.uint64)
        if self._library is None:
            return _nearest_by_numpy(blocks, rows, query, bits, count, self.sizes)
        near = self.sizes.kept(rows)
        if len(self._found) < 2 * near + CHUNK:
            self._found = np.empty(2 * near + CHUNK, np.uint64)
        best, cosines = np.empty(count, np.uint32), np.empty(count, np.float32)
        found = self._library(
            addresses.ctypes.data,
            rows,
            len(blocks[0].codes),
            self.bits.words,
            self.dimensions,
            bits.ctypes.data,
            query.ctypes.data,
            ctypes.c_float(_length(query)),
            near,
            self.sizes.exact,
            count,
            self._found.ctypes.data,
            best.ctypes.data,
            cosines.ctypes.data,
        )
        return best[:found], cosines[:found]


def row_scan(dimensions: int, sizes: ScanSizes = SIZES) -> RowScan:
    """Returns a scan that uses the C library, where it can be built."""
    return RowScan(dimensions, sizes, scan_library())


def _nearest_by_numpy(
    blocks: Sequence[RowBlock],
    rows: int,
    query: NDArray[np.int8],
    bits: NDArray[np.uint64],
    count: int,
    sizes: ScanSizes,
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Does what scan.c does; of rows that are equally near, others may be left out."""
    room = len(blocks[0].codes)
    kept: NDArray[np.int64] = np.arange(rows)
    if rows > sizes.exact:
        distances = np.concatenate([_head_distances(block, bits) for block in blocks])[:rows]
        kept = _least(distances, sizes.kept(rows))
        tails = np.stack([blocks[row // room].tail[row % room] for row in kept.tolist()])
        exact = distances[kept] + np.bitwise_count(tails ^ bits[HEAD_WORDS:]).sum(axis=1, dtype=np.uint16)
        kept = kept[_least(exact, sizes.exact)]
    codes = np.stack([blocks[row // room].codes[row % room] for row in kept.tolist()]).astype(np.float32)
    lengths = np.array([blocks[row // room].lengths[row % room] for row in kept.tolist()], np.float32)
    cosines = np.asarray(codes @ query.astype(np.float32) / (lengths * _length(query)), np.float32)
    order = np.argsort(-cosines, kind="stable")[:count]
    return kept[order].astype(np.uint32), cosines[order]


def _head_distances(block: RowBlock, bits: NDArray[np.uint64]) -> NDArray[np.uint16]:
    counts = np.bitwise_count(block.head ^ bits[:HEAD_WORDS, None])
    return np.asarray(counts.sum(axis=0, dtype=np.uint16), np.uint16)


def _least(distances: NDArray[np.uint16], count: int) -> NDArray[np.int64]:
    """Returns the places of the ``count`` smallest."""
    if len(distances) <= count:
        return np.arange(len(distances))
    return np.sort(np.argpartition(distances, count)[:count])


def _length(vector: NDArray[np.int8]) -> float:
    """Returns the length of a vector, 1 for that of zeros: its cosines are 0."""
    return float(np.linalg.norm(vector.astype(np.float32))) or 1.0
