"""``BlockMatrix``: a matrix in the quantised form of a GGUF file, not unpacked yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engine.gguf import types
from engine.gguf.dequantise import (
    MAX_WEIGHTS,
    dequantise,
    dequantised,
    fifth_bits,
    halves,
    iq4_numbers,
    iq4_scales,
    k_fifth_bits,
    k_numbers,
    k_scales,
    nibbles,
    table_numbers,
)
from engine.gguf.types import TensorType
from engine.quant.format import GROUP
from engine.quant.grouped import GroupedMatrix

_BITS: dict[str, Literal[4, 8]] = {
    types.Q4_0.name: 4,
    types.Q4_1.name: 4,
    types.Q4_K.name: 4,
    types.Q5_0.name: 8,
    types.Q5_1.name: 8,
    types.Q5_K.name: 8,
    types.Q8_0.name: 8,
    types.IQ4_NL.name: 8,
    types.IQ4_XS.name: 8,
}
"""Bits in which the numbers of a type are kept for products. The other types have groups of 16, and are rounded to
groups of 32 in eight bits."""

MAX_HALF = 65_504.0
"""The largest float16."""


@dataclass(frozen=True, slots=True)
class BlockRows:
    """The rows of one tensor. ``raw`` is uint8 [outputs, bytes of a row]."""

    type: TensorType
    raw: Tensor

    @property
    def inputs(self) -> int:
        """The number of weights of a row."""
        return int(self.raw.shape[1]) // self.type.nbytes * self.type.weights


@dataclass(frozen=True, slots=True)
class BlockMatrix:
    """A matrix [outputs, inputs] of one or more tensors, stacked by rows. Each may have a type of its own."""

    parts: tuple[BlockRows, ...]

    @classmethod
    def stacked(cls, parts: Sequence[BlockRows]) -> BlockMatrix:
        """Returns the matrix of ``parts``, stacked by rows. Raises ValueError if they have different numbers of
        inputs."""
        if len({part.inputs for part in parts}) != 1:
            raise ValueError(f"rows of {sorted({part.inputs for part in parts})} weights make no matrix")
        return cls(tuple(parts))

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of outputs and inputs."""
        return sum(len(part.raw) for part in self.parts), self.parts[0].inputs

    @property
    def nbytes(self) -> int:
        """The number of bytes in the file."""
        return sum(part.raw.nbytes for part in self.parts)

    @property
    def bits(self) -> Literal[4, 8]:
        """The bits of a number in the result of ``grouped``."""
        return 4 if all(_BITS.get(part.type.name) == 4 for part in self.parts) else 8

    @property
    def exact(self) -> bool:
        """Whether ``grouped`` returns the numbers of the file, without rounding."""
        return all(part.type.name in _BITS for part in self.parts)

    def reordered(self, order: Tensor) -> BlockMatrix:
        """Returns the matrix whose row i is row ``order[i]`` of this one. Raises ValueError if a row would move to
        another part."""
        parts, first = [], 0
        order = order.to(self.parts[0].raw.device)  # the file's, not the model's
        for part in self.parts:
            own = order[first : first + len(part.raw)] - first
            if not ((own >= 0) & (own < len(part.raw))).all():
                raise ValueError("rows of matrices of different types do not change places")
            parts.append(BlockRows(part.type, part.raw[own]))
            first += len(part.raw)
        return BlockMatrix(tuple(parts))

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """Returns the weights [outputs, inputs] in ``dtype``."""
        result = torch.empty(*self.shape, dtype=dtype)
        first = 0
        for part in self.parts:
            dequantise(part.raw, part.type, result[first : first + len(part.raw)])
            first += len(part.raw)
        return result

    def grouped(self) -> GroupedMatrix:
        """Returns the weights in groups of 32 inputs, in the fewest bits that all parts allow. Raises ValueError for
        damaged scales."""
        parts = [_grouped(part, self.bits) for part in self.parts]
        return GroupedMatrix(
            self.bits,
            torch.cat([part.numbers for part in parts]),
            torch.cat([part.scales for part in parts]),
            torch.cat([part.minimums for part in parts]),
        )


def _grouped(rows: BlockRows, bits: Literal[4, 8]) -> GroupedMatrix:
    outputs, inputs = len(rows.raw), rows.inputs
    step = max(1, MAX_WEIGHTS // inputs)
    numbers = torch.empty(outputs, inputs, dtype=torch.uint8)
    scales, minimums = (torch.empty(outputs, inputs // GROUP, dtype=torch.float16) for _ in range(2))
    for first in range(0, outputs, step):
        part = slice(first, min(first + step, outputs))
        split = _groups(rows.raw[part].reshape(-1, rows.type.nbytes), rows.type)
        numbers[part], scales[part], minimums[part] = (
            each.view(part.stop - part.start, -1) for each in _checked(split, rows.type.name)
        )
    return GroupedMatrix(bits, numbers, scales, minimums)


def rounded(weight: Tensor) -> GroupedMatrix:
    """Returns ``weight`` [outputs, inputs], inputs a multiple of 32, rounded to eight bits in groups of 32 (Q8_0).
    Raises ValueError for weights that are no finite numbers."""
    outputs, inputs = weight.shape
    parts = [
        _checked(_rounded(part.float().reshape(-1, GROUP)), str(weight.dtype))
        for part in weight.split(max(1, MAX_WEIGHTS // inputs))
    ]
    numbers, scales, minimums = (torch.cat(each).view(outputs, -1) for each in zip(*parts, strict=True))
    return GroupedMatrix(8, numbers, scales.half(), minimums.half())


_Groups = tuple[Tensor, Tensor, Tensor]
"""Numbers uint8 [groups, 32], scales and minimums float32 [groups, 1]."""


def _checked(groups: _Groups, kind: str) -> _Groups:
    """Raises ValueError where a float16 cannot hold a scale or minimum."""
    for factors in groups[1:]:
        if not (factors.abs() <= MAX_HALF).all():
            raise ValueError(f"weights of type {kind} have a scale or minimum that is no finite number")
    return groups


def _groups(blocks: Tensor, kind: TensorType) -> _Groups:
    """``blocks`` uint8 [count, bytes of a block], taken apart."""
    if kind in (types.Q4_1, types.Q5_1):
        return _numbers_of_32(blocks, kind), halves(blocks, 0).float(), halves(blocks, 2).float()
    if kind in (types.Q4_0, types.Q5_0):
        scales = halves(blocks, 0).float()
        return _numbers_of_32(blocks, kind), scales, scales * (-8.0 if kind is types.Q4_0 else -16.0)
    if kind is types.Q8_0:
        scales = halves(blocks, 0).float()
        return blocks[:, 2:] ^ 128, scales, scales * -128.0  # two's complement with its top bit turned is 128 more
    if kind in (types.Q4_K, types.Q5_K):
        by, less = k_scales(blocks[:, 4:16])
        numbers = (
            k_numbers(blocks[:, 16:])
            if kind is types.Q4_K
            else k_numbers(blocks[:, 48:]) | k_fifth_bits(blocks[:, 16:48])
        )
        scales, minimums = halves(blocks, 0).float() * by, -halves(blocks, 2).float() * less
        return numbers.reshape(-1, GROUP), scales.view(-1, 1), minimums.view(-1, 1)
    if kind is types.IQ4_NL:
        scales = halves(blocks, 0).float()
        return table_numbers(blocks[:, 2:]), scales, scales * -128.0
    if kind is types.IQ4_XS:
        scales = iq4_scales(blocks).view(-1, 1)
        return iq4_numbers(blocks).view(-1, GROUP), scales, scales * -128.0
    return _rounded(dequantised(blocks, kind, torch.float32).view(-1, GROUP))


def _numbers_of_32(blocks: Tensor, kind: TensorType) -> Tensor:
    """The numbers of a block of 32: four bits each behind the factors, and the fifth bits before them."""
    low = nibbles(blocks[:, kind.nbytes - 16 :])
    if kind in (types.Q4_0, types.Q4_1):
        return low
    return low | fifth_bits(blocks[:, kind.nbytes - 20 : kind.nbytes - 16])


def _rounded(groups: Tensor) -> _Groups:
    """``groups`` float32 [count, 32] to the nearest of 255 numbers around zero, as Q8_0 does."""
    scales = (groups.abs().amax(-1, keepdim=True) / 127).half().float()
    numbers = (groups / scales).nan_to_num_(nan=0.0).clamp_(-127, 127).round_() + 128
    return numbers.to(torch.uint8), scales, scales * -128.0
