"""``RowBlock``: the vectors of a part of a partition, as a scan reads them. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEAD_WORDS = 2
"""The words of sign bits that a scan reads of each row. scan.c has the same number."""

CACHE_LINE = 64


class RowBlock:
    """Room for ``rows`` vectors in 8 bits with their lengths, and with ``words`` words of sign bits each; 0: none.

    The first bits lie one word beside that of the next row, since a scan reads those of all rows; the others lie row
    by row. All arrays are parts of one, which numpy asks the system to keep in large pages: a scan reads rows from all
    over it.
    """

    __slots__ = ("codes", "head", "lengths", "tail")

    def __init__(self, rows: int, dimensions: int, words: int) -> None:
        kept = rows if words else 0
        sizes = 8 * HEAD_WORDS * kept, 8 * max(0, words - HEAD_WORDS) * kept, 4 * rows, rows * dimensions
        buffer = np.empty(sum(sizes) + CACHE_LINE, np.uint8)
        first = -buffer.ctypes.data % CACHE_LINE  # a row of bits is then in one line
        parts = np.split(buffer[first : first + sum(sizes)], np.cumsum(sizes)[:-1])
        self.head: NDArray[np.uint64] = parts[0].view(np.uint64).reshape(HEAD_WORDS, kept)
        self.tail: NDArray[np.uint64] = parts[1].view(np.uint64).reshape(kept, -1 if kept else 0)
        self.lengths: NDArray[np.float32] = parts[2].view(np.float32)
        self.codes: NDArray[np.int8] = parts[3].view(np.int8).reshape(rows, dimensions)

    @property
    def addresses(self) -> tuple[int, int, int, int]:
        """The addresses of the arrays, in the order of ``struct block`` in scan.c. They are valid while this lives."""
        arrays = self.head, self.tail, self.codes, self.lengths
        return arrays[0].ctypes.data, arrays[1].ctypes.data, arrays[2].ctypes.data, arrays[3].ctypes.data

    @property
    def has_bits(self) -> bool:
        """Whether there is room for sign bits."""
        return bool(self.head.size)

    def put(self, first: int, codes: NDArray[np.int8], bits: NDArray[np.uint64] | None) -> None:
        """Writes vectors, int8 [n, dimensions], from row ``first`` on, with their sign bits, uint64 [n, words], if the
        block has any."""
        end = first + len(codes)
        self.codes[first:end] = codes
        lengths = np.linalg.norm(codes.astype(np.float32), axis=1)
        self.lengths[first:end] = np.where(lengths > 0, lengths, 1)  # the cosines of a vector of zeros are 0
        if bits is not None:
            self.head[:, first:end] = bits[:, :HEAD_WORDS].T
            self.tail[first:end] = bits[:, HEAD_WORDS:]

    def copy(self, source: RowBlock, rows: int) -> None:
        """Copies the first ``rows`` rows of ``source``, and their sign bits if both blocks have any."""
        self.codes[:rows] = source.codes[:rows]
        self.lengths[:rows] = source.lengths[:rows]
        if self.has_bits and source.has_bits:
            self.head[:, :rows] = source.head[:, :rows]
            self.tail[:rows] = source.tail[:rows]

    def copy_row(self, row: int, source: RowBlock, source_row: int) -> None:
        """Copies one row of ``source``."""
        self.codes[row] = source.codes[source_row]
        self.lengths[row] = source.lengths[source_row]
        if self.has_bits:
            self.head[:, row] = source.head[:, source_row]
            self.tail[row] = source.tail[source_row]
