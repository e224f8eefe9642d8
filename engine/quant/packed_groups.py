"""``PackedGroups``: weights in groups with a scale and a minimum, in the layout that the GPU kernels read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.quant.format import GROUP
from engine.quant.grouped import GroupedMatrix
from engine.quant.matrix import WORD, packed_words, unpacked_words

PAIR = 2 * GROUP
"""Inputs of two groups: their factors are read as one word of 32 bits."""
MIDDLE = 8  # of numbers of four bits
_LOWEST, _HIGHEST = -128, 127  # of numbers of eight bits
CHUNK = 1 << 22  # weights that are packed at a time: in between they take some nine bytes each


@dataclass(frozen=True, slots=True)
class PackedGroups:
    """A matrix [outputs, inputs] in which each 32 inputs of an output share a scale and, unless all groups are
    symmetric, a minimum. Without minimums a weight is number x scale; with minimums it is number x scale + minimum in
    eight bits, and (number + 8) x scale + minimum in four.

    Numbers are signed, other than those of ``GroupedMatrix``. Words are those of ``PackedMatrix``: numbers of one word
    are ``width`` inputs apart, and four bits are stored with 8 added. The scales of two groups that follow each other
    lie next to each other, and so do the minimums.
    """

    bits: Literal[4, 8]
    inputs: int
    numbers: Tensor  # int16 [outputs, width], width a multiple of 64; anything after the last input
    scales: Tensor  # float16 [pairs of groups, outputs, 2], zeros after the last input
    minimums: Tensor | None  # float16 [pairs of groups, outputs, 2], zeros after the last input

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of outputs and inputs."""
        return len(self.numbers), self.inputs

    @property
    def nbytes(self) -> int:
        """The number of bytes of numbers, scales and minimums."""
        return self.numbers.nbytes + self.scales.nbytes + (0 if self.minimums is None else self.minimums.nbytes)

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """Returns the weights [outputs, inputs] in ``dtype``, computed in float32."""
        codes = unpacked_words(self.numbers, self.bits)
        signed = codes - (codes >> 7 << 8) if self.bits == 8 else codes - MIDDLE
        numbers = signed + MIDDLE if self.bits == 4 and self.minimums is not None else signed
        weights: Tensor = numbers.float().unflatten(1, (-1, GROUP)) * _by_output(self.scales)
        if self.minimums is not None:
            weights += _by_output(self.minimums)
        return weights.flatten(1)[:, : self.inputs].to(dtype)


def packed_groups(matrix: GroupedMatrix, device: torch.device) -> PackedGroups:
    """Returns ``matrix`` in the packed layout, on ``device``. Nothing is lost of what GGUF files hold; a group of eight
    bits that has numbers from 128 on, and none that stands for zero, has its minimum rounded to float16 again. Raises
    ValueError for one that float16 does not hold."""
    inputs, bits = matrix.shape[1], matrix.bits
    rest = -inputs % (WORD // bits * PAIR)
    rows = max(1, CHUNK // inputs)
    each = zip(matrix.numbers.split(rows), matrix.scales.split(rows), matrix.minimums.split(rows), strict=True)
    parts = [_part(bits, rest, *(factor.to(device) for factor in part)) for part in each]
    words, scales, minimums, symmetric = zip(*parts, strict=True)
    kept = None if all(symmetric) else torch.cat(minimums, 1)
    return PackedGroups(bits, inputs, torch.cat(words), torch.cat(scales, 1), kept)


def _part(
    bits: Literal[4, 8], rest: int, numbers: Tensor, scales: Tensor, minimums: Tensor
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Returns the words, scales and minimums of some outputs, with ``rest`` more inputs, and whether all these groups
    are symmetric."""
    if bits == 8:
        numbers, minimums = _signed(numbers, scales, minimums)
        symmetric = not minimums.any()
    else:
        symmetric = torch.equal(minimums.float(), -MIDDLE * scales.float())
    words = packed_words(F.pad(numbers, (0, rest)), bits)
    return words, _in_pairs(scales, rest), _in_pairs(minimums, rest), symmetric


def _signed(numbers: Tensor, scales: Tensor, minimums: Tensor) -> tuple[Tensor, Tensor]:
    """Returns ``numbers`` [outputs, inputs] of eight bits less an offset for each group, as the bits of int8, and the
    minimums that go with them. The offset is the number that stands for zero, if there is one, else the least for which
    all numbers fit into int8."""
    groups, wide, lowest = numbers.unflatten(1, (-1, GROUP)), scales.float(), minimums.float()
    zeros = (-lowest / wide).round_()
    zeros = torch.where(zeros * wide + lowest == 0, zeros, 0.0)
    least, most = groups.amin(-1).float(), groups.amax(-1).float()
    offsets = torch.minimum(torch.maximum(zeros, most - _HIGHEST), least - _LOWEST)
    moved = (lowest + offsets * wide).half()
    if not moved.isfinite().all():
        raise ValueError("weights have a scale and a minimum that float16 does not hold around zero")
    codes = (groups.to(torch.int16) - offsets.to(torch.int16).unsqueeze(-1)) & 255
    return codes.to(torch.uint8).flatten(1), moved


def _in_pairs(factors: Tensor, rest: int) -> Tensor:
    """``factors`` [outputs, groups] as [pairs, outputs, 2], with zeros for ``rest`` more inputs."""
    pairs: Tensor = F.pad(factors, (0, rest // GROUP)).unflatten(1, (-1, 2))
    return pairs.transpose(0, 1).contiguous()


def _by_output(factors: Tensor) -> Tensor:
    """``factors`` [pairs, outputs, 2] as float32 [outputs, groups, 1]."""
    return factors.transpose(0, 1).flatten(1).float().unsqueeze(-1)
