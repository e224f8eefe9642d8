"""``GroupedMatrix``: weights in groups with a scale and a minimum, as in GGUF files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engine.quant.format import GROUP


@dataclass(frozen=True, slots=True)
class GroupedMatrix:
    """A matrix [outputs, inputs] in which each 32 inputs of an output share a scale and a minimum: a weight is number x
    scale + minimum (asymmetric quantisation, llama.cpp's Q4_1).

    A symmetric format is stored with the minimum -8 x scale or -128 x scale.
    """

    bits: Literal[4, 8]
    numbers: Tensor  # uint8 [outputs, inputs], below 2 ** bits
    scales: Tensor  # float16 [outputs, inputs / 32]
    minimums: Tensor  # float16 [outputs, inputs / 32]

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of outputs and inputs."""
        outputs, inputs = self.numbers.shape
        return outputs, inputs

    @property
    def nbytes(self) -> int:
        """The number of bytes of numbers, scales and minimums, with one byte per number."""
        return self.numbers.nbytes + self.scales.nbytes + self.minimums.nbytes

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """Returns the weights [outputs, inputs] in ``dtype``."""
        outputs, inputs = self.shape
        groups = self.numbers.view(outputs, inputs // GROUP, GROUP).float()
        return (groups * self.scales.float().unsqueeze(-1) + self.minimums.float().unsqueeze(-1)).flatten(1).to(dtype)
