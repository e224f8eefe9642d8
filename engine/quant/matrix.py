"""Quantised matrices: as numbers and scales, and packed as the kernels on a card read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.quant.format import GROUP, WeightFormat

WORD = 16  # bits


@dataclass(frozen=True, slots=True)
class QuantisedMatrix:
    """``numbers`` [outputs, inputs] times ``scales`` [outputs, groups of inputs] give the weights."""

    numbers: Tensor  # of WeightFormat.number
    scales: Tensor

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """The weights [outputs, inputs]."""
        outputs, groups = self.scales.shape
        grouped = self.numbers.view(outputs, groups, -1).float() * self.scales.float().unsqueeze(-1)
        return grouped.flatten(1).to(dtype)


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """Weights [outputs, inputs] as the kernels read them.

    Formats that round no inputs are unpacked in registers. A word of 16 bits holds as many numbers as fit into it, the
    lowest bits first; those of one word lie ``width`` inputs apart, so that taking one number out of each word gives
    inputs that follow each other. int8 is stored in two's complement, int4 with 8 added.
    """

    form: WeightFormat
    outputs: int
    inputs: int
    numbers: (
        Tensor  # int16 [outputs, width], zeros after the last input; of formats that round inputs [outputs, inputs]
    )
    scales: Tensor  # [outputs]; of a format with groups [groups, outputs]

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.outputs, self.inputs

    @property
    def nbytes(self) -> int:
        """Bytes of numbers and scales."""
        return self.numbers.nbytes + self.scales.nbytes

    def unpacked(self) -> QuantisedMatrix:
        """The same numbers one by one."""
        if self.form.rounds_inputs:
            return QuantisedMatrix(self.numbers, self.scales.unsqueeze(1))
        bits = self.form.bits
        words = self.numbers.to(torch.int32)
        parts = torch.cat([words >> place & (1 << bits) - 1 for place in range(0, WORD, bits)], 1)
        offset = self.form.lowest if bits == 4 else 0
        signed = parts - offset if bits == 4 else parts - (parts >> 7 << 8)
        scales = self.scales.unsqueeze(1) if self.form.group is None else self.scales.t()[:, : self.inputs // GROUP]
        return QuantisedMatrix(signed[:, : self.inputs].to(self.form.number).contiguous(), scales.contiguous())

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """The weights [outputs, inputs]."""
        return self.unpacked().dequantised(dtype)


def packed(matrix: QuantisedMatrix, form: WeightFormat) -> PackedMatrix:
    """``matrix`` in ``form``."""
    outputs, inputs = matrix.numbers.shape
    scales = matrix.scales.view(-1) if form.group is None else matrix.scales.t()
    if form.rounds_inputs:
        return PackedMatrix(form, outputs, inputs, matrix.numbers.contiguous(), scales.contiguous())
    parts = WORD // form.bits
    rest = -inputs % (parts * GROUP)
    words = torch.zeros(outputs, (inputs + rest) // parts, dtype=torch.int32, device=matrix.numbers.device)
    numbers = F.pad(matrix.numbers, (0, rest)).view(outputs, parts, -1)
    for place in range(parts):
        part = numbers[:, place].to(torch.int32)
        words |= (part + form.lowest if form.bits == 4 else part & 255) << place * form.bits
    if form.group is not None:
        scales = F.pad(scales, (0, 0, 0, rest // GROUP))
    # The two's complement of what does not fit: the bits are what counts.
    signed = (words - (words >> WORD - 1 << WORD)).to(torch.int16)
    return PackedMatrix(form, outputs, inputs, signed, scales.contiguous())


def quantised_rows(x: Tensor, form: WeightFormat) -> tuple[Tensor, Tensor]:
    """``x`` [rows, inputs] as numbers of ``form`` and a float32 scale for each row.

    A row that holds what is no finite number has a scale that is none, so that it is not taken for one later.
    """
    wide = x.float()
    scales = wide.abs().amax(-1) / form.highest + (wide * 0).sum(-1)
    divided = (wide / scales.unsqueeze(-1)).nan_to_num_(nan=0.0).clamp_(-form.highest, form.highest)
    return (divided.round_() if form.number == torch.int8 else divided).to(form.number), scales


def rounded_rows(x: Tensor, form: WeightFormat) -> Tensor:
    """What rounding leaves of the inputs ``x`` [rows, inputs] of a product; ``x`` itself if ``form`` rounds none."""
    if not form.rounds_inputs:
        return x
    numbers, scales = quantised_rows(x, form)
    return (numbers.float() * scales.unsqueeze(-1)).to(x.dtype)
