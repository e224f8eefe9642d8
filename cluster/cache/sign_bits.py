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

    The share of signs in which two vectors differ is an estimate of their angle (Charikar, 2002). Turned, no component
    says more than another, so the first bits are an estimate by themselves.
    """

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        whole = -(-max(dimensions, MIN_BITS) // WORD_BITS) * WORD_BITS
        self._turned = whole
        self.words = min(whole, MAX_BITS) // WORD_BITS

    def __call__(self, vectors: NDArray[np.int8]) -> NDArray[np.uint64]:
        """Returns the bits of ``vectors``, int8 [n, dimensions], as uint64 [n, words]."""
        turned = vectors.astype(np.float32) @ self._rotation
        return np.packbits(turned > 0, axis=1).view(np.uint64)

    @cached_property
    def _rotation(self) -> NDArray[np.float32]:
        """float32 [dimensions, 64 words]. Made when the first partition is large enough to need it."""
        drawn = np.random.default_rng(SEED).standard_normal((self._turned, self._turned))
        rotation = np.linalg.qr(drawn)[0][: self._dimensions, : self.words * WORD_BITS]
        return np.ascontiguousarray(rotation, np.float32)
