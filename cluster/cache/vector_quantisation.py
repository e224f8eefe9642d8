"""Converts vectors to 8 bits, for the index, and to unit length. Pure."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MAX_DEVIATIONS = 6.0
"""Standard deviations beyond which a component is clipped. That of a unit vector is 1 / sqrt(dimensions)."""


def to_int8(vectors: NDArray[np.float32]) -> NDArray[np.int8]:
    """Returns unit ``vectors``, float32 [..., dimensions], as int8, all with the same scale, so that their cosines are
    comparable.

    The scale uses the range of the components that occur: the range of all unit vectors, -1 to 1, would leave five of
    the eight bits unused, and a cosine would be wrong by 0.003 instead of 0.001.
    """
    scale = 127 * math.sqrt(vectors.shape[-1]) / MAX_DEVIATIONS
    codes: NDArray[np.int8] = np.clip(np.rint(vectors * scale), -127, 127).astype(np.int8)
    return codes


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns ``vectors``, float32 [n, dimensions], each divided by its length. A zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)
