"""Weight matrices in eight or four bits.

Rounded to the nearest, without calibration. In eight bits all weights of an output share a scale; in four bits 32 do,
so that an outlier harms its neighbours alone (as in llama.cpp's Q4_0), and each scale is the one of a few that loses
least.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.config import WeightDTypeName
from engine.model.weights import ExpertWeights, LayerWeights, MLPWeights, ModelWeights

GROUP = 32  # inputs, as in kernels/cpu/src/integers.h
CHUNK = 1 << 22  # weights that are worked on at a time: several copies in float32 of a whole matrix would be much
# Four bits hold one number more below zero than above: the largest of a group becomes that one, or somewhat less, which
# cuts it off and brings the others nearer.
SHARES = (1.0, 0.93, 0.86)


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """Numbers reach from -``lowest`` to ``highest``. ``group`` inputs share a scale of type ``scale``; None: all of an
    output."""

    name: str
    lowest: int
    highest: int
    group: int | None
    scale: torch.dtype


INT8 = WeightFormat("int8", 127, 127, None, torch.float32)
INT4 = WeightFormat("int4", 8, 7, GROUP, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class WeightFormats:
    """Those of a model: of its layers, and of what reads the logits out, which is more sensitive."""

    layers: WeightFormat
    head: WeightFormat


FORMATS = {"int8": WeightFormats(INT8, INT8), "int4": WeightFormats(INT4, INT8)}


@dataclass(frozen=True, slots=True)
class QuantisedMatrix:
    """``numbers`` int8 [outputs, inputs] times ``scales`` [outputs, groups of inputs] give the weights."""

    numbers: Tensor
    scales: Tensor

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """The weights [outputs, inputs]."""
        outputs, groups = self.scales.shape
        grouped = self.numbers.view(outputs, groups, -1).float() * self.scales.float().unsqueeze(-1)
        return grouped.flatten(1).to(dtype)


def weight_formats(name: WeightDTypeName) -> WeightFormats | None:
    """The formats called ``name``; None for weights as they are."""
    return FORMATS.get(name)


def quantise(weight: Tensor, form: WeightFormat) -> QuantisedMatrix:
    """``weight`` [outputs, inputs] in ``form``. Raises ValueError if its inputs are no whole groups."""
    outputs, inputs = weight.shape
    group = form.group or inputs
    if inputs % group:
        raise ValueError(f"weight_dtype {form.name} takes groups of {group} inputs, a matrix has {inputs}")
    parts = [_rounded(part.float().reshape(-1, group), form) for part in weight.split(max(1, CHUNK // inputs))]
    numbers = torch.cat([numbers for numbers, _ in parts]).view(outputs, inputs)
    return QuantisedMatrix(numbers, torch.cat([scales for _, scales in parts]).view(outputs, -1))


def rounded_model(weights: ModelWeights, formats: WeightFormats) -> ModelWeights:
    """The same model with what rounding leaves of its weights, in its own dtype; experts' routers stay as they are.

    For kernels that multiply no whole numbers.
    """

    def through(weight: Tensor, form: WeightFormat = formats.layers) -> Tensor:
        return quantise(weight, form).dequantised(weight.dtype)

    def layer(whole: LayerWeights) -> LayerWeights:
        return replace(whole, qkv=through(whole.qkv), output=through(whole.output), mlp=mlp(whole.mlp))

    def mlp(whole: MLPWeights | ExpertWeights) -> MLPWeights | ExpertWeights:
        if isinstance(whole, MLPWeights):
            return replace(whole, gate_up=through(whole.gate_up), down=through(whole.down))
        gate_up, down = (torch.stack([through(one) for one in each]) for each in (whole.gate_up, whole.down))
        return replace(whole, gate_up=gate_up, down=down)

    layers = tuple(layer(whole) for whole in weights.layers)
    return replace(weights, layers=layers, head=through(weights.head, formats.head))


def _rounded(groups: Tensor, form: WeightFormat) -> tuple[Tensor, Tensor]:
    """Numbers int8 [groups, inputs] and scales [groups] of float32 ``groups``."""
    best, least = None, None
    for scales in _candidates(groups, form):
        wide = scales.float().unsqueeze(-1)
        numbers = (groups / wide).nan_to_num_(nan=0.0).round_().clamp_(-form.lowest, form.highest)
        lost = (numbers * wide - groups).square_().sum(-1)
        if best is None or least is None:
            best, least = (numbers, scales), lost
        else:
            better = lost < least
            best = (torch.where(better.unsqueeze(-1), numbers, best[0]), torch.where(better, scales, best[1]))
            least = torch.minimum(least, lost)
    assert best is not None
    return best[0].to(torch.int8), best[1]


def _candidates(groups: Tensor, form: WeightFormat) -> Iterator[Tensor]:
    """Scales [groups] to try. What has no numbers but zero has the scale zero."""
    if form.lowest == form.highest:
        yield (groups.abs().amax(-1) / form.highest).to(form.scale)
        return
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True)).squeeze(-1)
    for share in SHARES:
        yield (largest * share / -form.lowest).to(form.scale)
