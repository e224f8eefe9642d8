"""Quantised matrices: as numbers and scales, and packed for the GPU kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.quant.format import GROUP, WeightFormat

WORD = 16  # bits


@dataclass(frozen=True, slots=True)
class QuantisedMatrix:
    """A quantised matrix: the weights are ``numbers`` [outputs, inputs] times ``scales`` [outputs, groups of
    inputs]."""

    numbers: Tensor  # of WeightFormat.number
    scales: Tensor

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """Returns the weights [outputs, inputs] in ``dtype``."""
        outputs, groups = self.scales.shape
        grouped = self.numbers.view(outputs, groups, -1).float() * self.scales.float().unsqueeze(-1)
        return grouped.flatten(1).to(dtype)


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A quantised matrix [outputs, inputs] in the layout that the GPU kernels read.

    Formats that round no inputs are unpacked in registers. A word of 16 bits holds two int8 or four int4 numbers, the
    lowest bits first. The numbers of one word are ``width`` inputs apart, so that the numbers at the same place of
    consecutive words belong to consecutive inputs. int8 is stored in two's complement, int4 with 8 added.
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
        """The numbers of outputs and inputs."""
        return self.outputs, self.inputs

    @property
    def nbytes(self) -> int:
        """The number of bytes of numbers and scales."""
        return self.numbers.nbytes + self.scales.nbytes

    def unpacked(self) -> QuantisedMatrix:
        """Returns the matrix with one element per number."""
        if self.form.rounds_inputs:
            return QuantisedMatrix(self.numbers, self.scales.unsqueeze(1))
        bits = self.form.bits
        parts = unpacked_words(self.numbers, bits)
        offset = self.form.lowest if bits == 4 else 0
        signed = parts - offset if bits == 4 else parts - (parts >> 7 << 8)
        scales = self.scales.unsqueeze(1) if self.form.group is None else self.scales.t()[:, : self.inputs // GROUP]
        return QuantisedMatrix(signed[:, : self.inputs].to(self.form.number).contiguous(), scales.contiguous())

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """Returns the weights [outputs, inputs] in ``dtype``."""
        return self.unpacked().dequantised(dtype)


def packed(matrix: QuantisedMatrix, form: WeightFormat) -> PackedMatrix:
    """Returns ``matrix``, whose numbers have the format ``form``, in the packed layout."""
    outputs, inputs = matrix.numbers.shape
    scales = matrix.scales.view(-1) if form.group is None else matrix.scales.t()
    if form.rounds_inputs:
        return PackedMatrix(form, outputs, inputs, matrix.numbers.contiguous(), scales.contiguous())
    parts = WORD // form.bits
    rest = -inputs % (parts * GROUP)
    numbers = F.pad(matrix.numbers, (0, rest))
    codes = numbers + form.lowest if form.bits == 4 else numbers
    words = packed_words(codes.view(torch.uint8), form.bits)
    if form.group is not None:
        scales = F.pad(scales, (0, 0, 0, rest // GROUP))
    return PackedMatrix(form, outputs, inputs, words, scales.contiguous())


def packed_words(codes: Tensor, bits: int) -> Tensor:
    """Returns ``codes``, uint8 [outputs, inputs] below 2 ** ``bits``, as int16 words [outputs, width] of 16 / ``bits``
    codes each, which are ``width`` inputs apart, the first in the lowest bits."""
    parts = codes.view(len(codes), WORD // bits, -1)
    words = torch.zeros_like(parts[:, 0], dtype=torch.int32)
    for place in range(WORD // bits):
        words |= parts[:, place].to(torch.int32) << place * bits
    # The two's complement of what does not fit: the bits are what counts.
    return (words - (words >> WORD - 1 << WORD)).to(torch.int16)


def unpacked_words(words: Tensor, bits: int) -> Tensor:
    """Returns the codes, int32 [outputs, inputs], of int16 ``words`` [outputs, width] as ``packed_words`` makes
    them."""
    wide = words.to(torch.int32)
    return torch.cat([wide >> place & (1 << bits) - 1 for place in range(0, WORD, bits)], 1)


def quantised_rows(x: Tensor, form: WeightFormat) -> tuple[Tensor, Tensor]:
    """Returns ``x`` [rows, inputs] as numbers of ``form``, and a float32 scale for each row.

    A row with NaN or Inf gets a scale that is not finite, so that the error is not lost.
    """
    wide = x.float()
    scales = wide.abs().amax(-1) / form.highest + (wide * 0).sum(-1)
    divided = (wide / scales.unsqueeze(-1)).nan_to_num_(nan=0.0).clamp_(-form.highest, form.highest)
    return (divided.round_() if form.number == torch.int8 else divided).to(form.number), scales


def rounded_rows(x: Tensor, form: WeightFormat) -> Tensor:
    """Returns the inputs ``x`` [rows, inputs] of a product, quantised to ``form`` and dequantised again; ``x`` itself
    if ``form`` rounds no inputs."""
    if not form.rounds_inputs:
        return x
    numbers, scales = quantised_rows(x, form)
    return (numbers.float() * scales.unsqueeze(-1)).to(x.dtype)
