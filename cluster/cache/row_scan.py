"""``RowScan``: finds the rows of a partition that are nearest to a query. Pure.

Three looks: at some sign bits of all rows, at all bits of those that are near by them, and at the 8-bit codes of those
that are nearest by their bits. ``scan.c`` takes them in one call; without a C compiler ``numpy_scan`` finds the same,
many times as slowly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.cache.numpy_scan import nearest_by_numpy
from cluster.cache.row_block import CHUNK, RowBlock
from cluster.cache.scan_library import NearestRows, scan_library
from cluster.cache.scan_sizes import SIZES, ScanSizes
from cluster.cache.sign_bits import SignBits


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
        if self._library is None:
            return nearest_by_numpy(blocks, rows, self.bits, query, count, self.sizes)
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
            self.bits.rotation.ctypes.data if rows > self.sizes.exact else None,
            query.ctypes.data,
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
