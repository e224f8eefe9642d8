"""``RowBlock``: the vectors of a part of a partition, as a scan reads them. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GROUP = 4
"""The signs that a scan looks at together."""
CHUNK = 128
"""The rows of a plane that lie in 64 bytes: the first half in the low four bits, the others in the high ones. scan.c
has the same numbers."""
CACHE_LINE = 64


class RowBlock:
    """Room for ``rows`` vectors in 8 bits with their lengths, and with ``words`` words of sign bits each; 0: none.

    Blocks with sign bits have room for whole chunks. Their bits are there twice: row by row, and in planes, each of
    which has one group of all rows, so that a scan reads no others of all rows than it has chosen. All arrays are parts
    of one, which numpy asks the system to keep in large pages: a scan reads rows from all over it.
    """

    __slots__ = ("codes", "lengths", "planes", "signs")

    def __init__(self, rows: int, dimensions: int, words: int) -> None:
        kept = rows if words else 0
        sizes = 8 * words * kept, 8 * words * kept, 4 * rows, rows * dimensions
        buffer = np.empty(sum(sizes) + CACHE_LINE, np.uint8)
        first = -buffer.ctypes.data % CACHE_LINE
        parts = np.split(buffer[first : first + sum(sizes)], np.cumsum(sizes)[:-1])
        self.planes: NDArray[np.uint8] = parts[0].reshape(64 * words // GROUP, kept // 2)
        self.signs: NDArray[np.uint64] = parts[1].view(np.uint64).reshape(kept, words)
        self.lengths: NDArray[np.float32] = parts[2].view(np.float32)
        self.codes: NDArray[np.int8] = parts[3].view(np.int8).reshape(rows, dimensions)

    @property
    def addresses(self) -> tuple[int, int, int, int]:
        """The addresses of the arrays, in the order of ``struct block`` in scan.c. They are valid while this lives."""
        arrays = self.planes, self.signs, self.codes, self.lengths
        return arrays[0].ctypes.data, arrays[1].ctypes.data, arrays[2].ctypes.data, arrays[3].ctypes.data

    @property
    def has_bits(self) -> bool:
        """Whether there is room for sign bits."""
        return bool(self.signs.size)

    def put(self, first: int, codes: NDArray[np.int8], bits: NDArray[np.uint64] | None) -> None:
        """Writes vectors, int8 [n, dimensions], from row ``first`` on, with their sign bits, uint64 [n, words], if the
        block has any."""
        end = first + len(codes)
        self.codes[first:end] = codes
        lengths = np.linalg.norm(codes.astype(np.float32), axis=1)
        self.lengths[first:end] = np.where(lengths > 0, lengths, 1)  # the cosines of a vector of zeros are 0
        if bits is not None:
            self.signs[first:end] = bits
            self._put_planes(first, bits)

    def copy(self, source: RowBlock, rows: int) -> None:
        """Copies the first ``rows`` rows of ``source``, and their sign bits if both blocks have any."""
        self.codes[:rows] = source.codes[:rows]
        self.lengths[:rows] = source.lengths[:rows]
        if self.has_bits and source.has_bits:
            self.signs[:rows] = source.signs[:rows]
            half = -(-rows // CHUNK) * CHUNK // 2
            self.planes[:, :half] = source.planes[:, :half]

    def copy_row(self, row: int, source: RowBlock, source_row: int) -> None:
        """Copies one row of ``source``."""
        self.codes[row] = source.codes[source_row]
        self.lengths[row] = source.lengths[source_row]
        if self.has_bits:
            self.signs[row] = source.signs[source_row]
            self._put_planes(row, source.signs[source_row : source_row + 1])

    def _put_planes(self, first: int, bits: NDArray[np.uint64]) -> None:
        pairs = bits.view(np.uint8)
        groups = np.stack([pairs >> 4, pairs & 15], axis=2).reshape(len(bits), -1).T
        rows = np.arange(first, first + len(bits))
        places, high = rows // CHUNK * (CHUNK // 2) + rows % (CHUNK // 2), rows % CHUNK >= CHUNK // 2
        for half, keep, shift in ((~high, 0xF0, 0), (high, 0x0F, 4)):
            where = places[half]
            self.planes[:, where] = self.planes[:, where] & keep | groups[:, half] << shift
