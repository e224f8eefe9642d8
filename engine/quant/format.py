"""The formats of weight matrices in eight or four bits: the range of the numbers, and how many of them share a
scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch

GROUP = 32  # inputs, as in kernels/cpu/src/integers.h


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """A format of quantised weight matrices. Numbers are in the range from -``lowest`` to ``highest``. ``group`` inputs
    of an output share a scale of the dtype ``scale``; None: all inputs of an output do. ``number`` is the dtype of an
    unpacked number. ``rounds_inputs``: the inputs of a product are quantised to ``number`` too, each row with a scale
    of its own, so that the product is computed on numbers of this type."""

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
