"""``QuantisedMatrix``: a matrix of small integers with a scale for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_EMBEDDING = 127
"""The largest absolute code of an embedding."""

MAX_WEIGHT = 63
"""The largest absolute code of a weight in a product: 7 bits.

Processors without VNNI add two products of 8 bits in 16, where 2 x 255 x 127 does not fit: the sum saturates without
notice. 2 x 255 x 63 fits, so sums are exact, and equal on all processors.
"""


@dataclass(frozen=True, slots=True)
class QuantisedMatrix:
    """The matrix ``codes * scale[:, None]``. ``codes``: int8 [rows, columns]; ``scale``: float32 [rows]."""

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]

    def dequantised(self) -> NDArray[np.float32]:
        """Returns the matrix, float32 [rows, columns]."""
        return self.codes.astype(np.float32) * self.scale[:, None]


def quantised(matrix: NDArray[np.float32], max_code: int) -> QuantisedMatrix:
    """Returns ``matrix``, float32 [rows, columns], quantised symmetrically by row, with codes from -``max_code`` to
    ``max_code``."""
    largest = np.abs(matrix).max(axis=1)
    scale = np.where(largest > 0, largest / max_code, 1.0).astype(np.float32)
    return QuantisedMatrix(np.rint(matrix / scale[:, None]).astype(np.int8), scale)


def stacked(parts: Sequence[QuantisedMatrix]) -> QuantisedMatrix:
    """Returns the rows of all ``parts``, one below the other."""
    return QuantisedMatrix(
        np.concatenate([part.codes for part in parts]), np.concatenate([part.scale for part in parts])
    )


def narrowed(matrix: QuantisedMatrix, max_code: int) -> QuantisedMatrix:
    """Returns ``matrix`` quantised again, with codes from -``max_code`` to ``max_code``. A matrix whose codes are in
    that range already is returned unchanged."""
    if np.abs(matrix.codes.astype(np.int16)).max(initial=0) <= max_code:
        return matrix
    return quantised(matrix.dequantised(), max_code)
