"""``Precision``: the numeric precision of an encoder."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """The precision of the layers' matrix products."""

    INT8 = "int8"  # weights in 7 bits, rows of activations in 8
    FLOAT32 = "float32"
