"""``Precision``: how an encoder computes."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """How the products of the layers are computed."""

    INT8 = "int8"  # weights in 7 bits, rows of activations in 8
    FLOAT32 = "float32"
