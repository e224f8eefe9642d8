"""The tilings of matrix products, by a table for each device, with defaults for devices without one.

The best tiling depends on the number of rows, which decides whether a product is bound by memory or by the tensor
cores. Where answers must not depend on the batch, all tilings for bfloat16 may be used, since their tiles add up in the
same order, and of the other kinds only the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from engine.kernels.triton.tuning import card_of

Kind = Literal["float32", "bfloat16", "int8", "int4", "grouped8", "grouped4", "w8a8", "fp8", "experts"]
"""What is multiplied: numbers as they are, float16 like bfloat16, or a format of weights (those of GGUF files are
``grouped``), or those of experts."""
ARRIVALS = 4096
"""Most tiles of a product whose inputs are split; ``Tiling.programs`` stays below."""
FIXED_OUTPUTS = 64
"""Outputs of a tile, as far as it decides into how many parts the inputs of a product of fixed order are cut."""
FIXED_STEP = 128
"""The length of each part, in columns, is a multiple of this. The ``inputs`` of every tile divide it."""
_FIXED_PROGRAMS = 127


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tile of one program, the order of tiles, and the compiler's options. Raises ValueError for ``programs`` out
    of range.

    ``inputs`` is in columns of the stored matrix: in words, if numbers are packed into words. If there are fewer tiles
    than ``programs``, several programs share each tile and take a part of the inputs each.
    """

    rows: int
    outputs: int
    inputs: int
    warps: int
    stages: int
    programs: int = 1
    group: int = 8  # tiles of rows that are computed before the next tile of outputs: what is read stays in L2

    def __post_init__(self) -> None:
        if not 1 <= self.programs <= ARRIVALS:
            raise ValueError(f"programs must be 1 to {ARRIVALS}, got {self.programs}")


Table = Mapping[Kind, tuple[tuple[int, Tiling], ...]]
"""For each kind, up to how many rows which tiling serves; the last serves all others too."""

_EIGHTS = (
    (16, Tiling(16, 64, 128, 4, 4, programs=528)),
    (64, Tiling(64, 64, 128, 4, 3, programs=264)),
    (256, Tiling(128, 64, 128, 4, 4, programs=264)),
    (257, Tiling(128, 256, 128, 8, 3)),
)
_HOPPER: Table = {
    # Without tensor cores, which would round.
    "float32": ((1, Tiling(64, 64, 16, 4, 3, programs=528)),),
    # All of one order: the tensor cores add up 16 inputs after the other, however many rows and outputs a tile has.
    "bfloat16": (
        (16, Tiling(16, 64, 128, 4, 6, programs=_FIXED_PROGRAMS)),
        (64, Tiling(64, 64, 128, 4, 4, programs=_FIXED_PROGRAMS)),
        (256, Tiling(128, 128, 64, 8, 4, programs=_FIXED_PROGRAMS)),
        (257, Tiling(256, 128, 64, 8, 3, programs=_FIXED_PROGRAMS)),
    ),
    "int8": (
        (16, Tiling(16, 64, 128, 4, 4, programs=264)),
        (64, Tiling(64, 128, 64, 4, 4, programs=264)),
        (256, Tiling(64, 128, 64, 4, 4, programs=264)),
        (257, Tiling(256, 128, 64, 8, 3)),
    ),
    "int4": (
        (16, Tiling(16, 128, 64, 4, 4, programs=264)),
        (64, Tiling(64, 64, 64, 4, 3, programs=264)),
        (65, Tiling(128, 128, 64, 8, 3)),
    ),
    # Not measured yet. A step is two groups in each place of a word, whatever stands here.
    "grouped8": (
        (16, Tiling(16, 64, 64, 4, 4, programs=264)),
        (64, Tiling(64, 64, 64, 4, 3, programs=264)),
        (65, Tiling(128, 128, 64, 8, 3)),
    ),
    "grouped4": (
        (16, Tiling(16, 128, 64, 4, 4, programs=264)),
        (64, Tiling(64, 64, 64, 4, 3, programs=264)),
        (65, Tiling(128, 128, 64, 8, 3)),
    ),
    "w8a8": _EIGHTS,
    "fp8": _EIGHTS,
    # Rows count those of one expert, on average.
    "experts": ((16, Tiling(16, 64, 128, 4, 4)), (64, Tiling(64, 128, 64, 4, 4)), (65, Tiling(128, 128, 64, 8, 3))),
}
_STREAMED = (
    (1.0, Tiling(256, 128, 64, 8, 4)),
    (0.9, Tiling(128, 128, 64, 4, 5)),
    (0.6, Tiling(128, 64, 128, 4, 4)),
)
"""Tiles of more than 64 rows that TMA loads, and what part of the first one's speed each reaches where all
multiprocessors have one (an H200, 4,096 rows)."""
_STREAMED_FEW = (Tiling(16, 64, 128, 4, 6), Tiling(64, 64, 128, 4, 6))
TABLES: Mapping[str, Table] = {"NVIDIA H100": _HOPPER, "NVIDIA H200": _HOPPER}
"""By how the card's name begins."""
DEFAULT = _HOPPER


def tiling(kind: Kind, rows: int, device: torch.device, fixed: bool = False) -> Tiling:
    """Returns the tiling for a product of ``rows`` rows on ``device``. With ``fixed``, the order of summation is the
    same for any number of rows."""
    entries = _table(card_of(device))[kind]
    if fixed and kind != "bfloat16":
        return entries[-1][1]
    return next((found for most, found in entries if rows <= most), entries[-1][1])


def streamed_tiling(rows: int, count: int, multiprocessors: int) -> Tiling:
    """Returns the fastest tiling for ``streamed_matmul`` with ``rows`` rows and ``count`` outputs. It takes into
    account that the last round of tiles leaves some multiprocessors idle. All these tilings add up in the same
    order."""
    for tile in _STREAMED_FEW:
        if rows <= tile.rows:
            return tile

    def speed(entry: tuple[float, Tiling]) -> float:
        """Of real outputs: those of padding count for nothing."""
        part, tile = entry
        tiles = -(-rows // tile.rows) * -(-count // tile.outputs)
        rounds = -(-tiles // multiprocessors)
        return part * rows * count / (rounds * multiprocessors * tile.rows * tile.outputs)

    return max(_STREAMED, key=speed)[1]


@cache
def _table(card: str) -> Table:
    return next((table for start, table in TABLES.items() if card.startswith(start)), DEFAULT)
