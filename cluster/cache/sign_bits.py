"""``SignBits``: the signs of turned vectors, by which a search leaves most vectors out. Pure."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

WORD_BITS = 64
MIN_BITS = 256
MAX_BITS = 4096
SEED = 7


class SignBits:
    """Turns vectors of ``dimensions`` components by a fixed random rotation, and keeps the sign of each component.

    The share of signs in which two vectors differ is an estimate of their angle (Charikar, 2002), and a better one if
    each sign weighs as much as the component of one of the two. Turned, no component says more than another of all
    vectors; of one vector, those that are large do.
    """

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        whole = -(-max(dimensions, MIN_BITS) // WORD_BITS) * WORD_BITS
        self._turned = whole
        self.words = min(whole, MAX_BITS) // WORD_BITS

    def __call__(self, vectors: NDArray[np.int8]) -> NDArray[np.uint64]:
        """Returns the bits of ``vectors``, int8 [n, dimensions], as uint64 [n, words]."""
        return np.packbits(self.turned(vectors) > 0, axis=1).view(np.uint64)

    def turned(self, vectors: NDArray[np.int8]) -> NDArray[np.float32]:
        """Returns the products of ``vectors``, int8 [n, dimensions], with the rotation: whole numbers, float32 [n, 64
        words]."""
        products: NDArray[np.float32] = vectors.astype(np.float32) @ self._columns
        return products

    @cached_property
    def rotation(self) -> NDArray[np.int8]:
        """The rotation in 8 bits, int8 [64 words, dimensions]. Made when the first partition is large enough to need
        it."""
        drawn = np.random.default_rng(SEED).standard_normal((self._turned, self._turned))
        rows = np.linalg.qr(drawn)[0][: self.words * WORD_BITS, : self._dimensions]
        return np.ascontiguousarray(np.rint(rows * (127 / np.abs(rows).max())), np.int8)

    @cached_property
    def _columns(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(self.rotation.T, np.float32)
