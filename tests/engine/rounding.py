"""What rounding leaves of the inputs of products of whole numbers."""

from __future__ import annotations

import torch
from torch import nn

from engine.quant.format import GROUP

MIN_STEPS = 1e-3
"""Float32 inputs of up to 127 steps are off by up to 1e-4 steps."""


class Rounding:
    """What is left of a product's inputs: 127 steps either way, by groups. ``margins`` [rows] are the smallest
    distances of all inputs of a row of the batch from the middle between two steps, in steps."""

    def __init__(self) -> None:
        self.margins = torch.tensor(torch.inf)

    def __call__(self, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        groups = inputs[0].reshape(-1, GROUP)
        step = groups.abs().amax(-1, keepdim=True) / 127
        numbers = (groups / step).nan_to_num(nan=0.0)
        distances = (numbers - numbers.floor() - 0.5).abs().view(len(inputs[0]), -1)
        self.margins = self.margins.minimum(distances.amin(-1))
        return ((numbers.round() * step).view_as(inputs[0]),)
