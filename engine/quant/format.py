"""Formats of weight matrices in eight or four bits: which numbers are stored, and how many of them share a scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch

GROUP = 32  # inputs, as in kernels/cpu/src/integers.h


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """Numbers reach from -``lowest`` to ``highest``. ``group`` inputs share a scale of type ``scale``; None: all of an
    output. ``number`` is the type of a number once unpacked. Where ``rounds_inputs``, a product's other side is rounded
    to that type as well, each row with a scale of its own, so that numbers of ``number`` are multiplied."""

    name: str
    lowest: int
    highest: int
    group: int | None
    scale: torch.dtype
    bits: int = 8
    number: torch.dtype = torch.int8
    rounds_inputs: bool = False


INT8 = WeightFormat("int8", 127, 127, None, torch.float32)
INT4 = WeightFormat("int4", 8, 7, GROUP, torch.bfloat16, bits=4)
W8A8 = WeightFormat("w8a8", 127, 127, None, torch.float32, rounds_inputs=True)
FP8 = WeightFormat("fp8", 448, 448, None, torch.float32, number=torch.float8_e4m3fn, rounds_inputs=True)
