"""How matrix products are cut into programs: a table for each device, with defaults for those not in it.

What is right depends on the number of rows, which decides whether a product waits for its weights or for the tensor
cores. Only the last row of a table serves when answers must not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from engine.kernels.triton.tuning import card_of

Kind = Literal["float32", "bfloat16", "int8", "int4", "w8a8", "fp8", "experts"]
"""What is multiplied: numbers as they are, float16 like bfloat16, or a format of weights, or those of experts."""
ARRIVALS = 4096
"""Most tiles of a product whose inputs are split; ``Tiling.programs`` stays below."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tile of one program, how tiles follow each other, and what the compiler is told.

    ``inputs`` counts columns of the stored matrix, so words where numbers are packed into words. Where there are fewer
    tiles than ``programs``, each is shared by several programs that take a part of the inputs each.
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
    (16, Tiling(16, 64, 256, 4, 4, programs=528)),
    (64, Tiling(64, 64, 128, 4, 4, programs=264)),
    (65, Tiling(128, 128, 128, 8, 4)),
)
_HOPPER: Table = {
    # Without tensor cores, which would round.
    "float32": ((1, Tiling(64, 64, 16, 4, 3, programs=528)),),
    # One tiling for any number of rows. Wide enough to multiply long prompts, and few rows still wait for weights.
    "bfloat16": ((1, Tiling(128, 128, 64, 8, 4, programs=264)),),
    "int8": (
        (16, Tiling(16, 64, 128, 4, 3, programs=528)),
        (64, Tiling(64, 64, 64, 4, 3, programs=264)),
        (65, Tiling(128, 128, 64, 8, 3)),
    ),
    "int4": (
        (16, Tiling(16, 64, 128, 4, 3, programs=264)),
        (64, Tiling(64, 64, 64, 4, 3, programs=264)),
        (65, Tiling(64, 128, 64, 4, 3)),
    ),
    "w8a8": _EIGHTS,
    "fp8": _EIGHTS,
    # Rows count those of one expert, on average.
    "experts": ((16, Tiling(16, 64, 128, 4, 4)), (64, Tiling(64, 128, 64, 4, 4)), (65, Tiling(128, 128, 64, 8, 3))),
}
TABLES: Mapping[str, Table] = {"NVIDIA H100": _HOPPER, "NVIDIA H200": _HOPPER}
"""By how the card's name begins."""
DEFAULT = _HOPPER


def tiling(kind: Kind, rows: int, device: torch.device, fixed: bool = False) -> Tiling:
    """The tiling for a product of so many rows on ``device``; if ``fixed`` the same for any number of them."""
    entries = _table(card_of(device))[kind]
    if fixed:
        return entries[-1][1]
    return next((found for most, found in entries if rows <= most), entries[-1][1])


@cache
def _table(card: str) -> Table:
    return next((table for start, table in TABLES.items() if card.startswith(start)), DEFAULT)
