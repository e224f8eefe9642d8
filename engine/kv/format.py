"""The storage formats of keys and values: the engine's dtype, another float type, or one byte per number with a scale
for each token and head.

The scale is the number by which the elements of one head's key or value were divided. A scale for each token keeps the
effect of an outlier to that token (KIVI, Liu et al. 2024, shows why coarser scales lose more).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import KVDTypeName
from engine.memory import lazy_zeros


@dataclass(frozen=True, slots=True)
class KVFormat:
    """A storage format of keys and values. ``number`` is the dtype of one stored number. ``largest``, only set for
    formats with scales, is the stored value of the largest number of a head."""

    name: str
    number: torch.dtype
    largest: float | None = None

    @property
    def scaled(self) -> bool:
        """Whether each token and head has a scale."""
        return self.largest is not None

    def head_bytes(self, head_dim: int) -> int:
        """Returns the bytes of one key or one value: one token in one head."""
        return head_dim * self.number.itemsize + (SCALE.itemsize if self.scaled else 0)


SCALE = torch.bfloat16
INT8 = KVFormat("int8", torch.int8, 127.0)
FP8 = KVFormat("fp8", torch.float8_e4m3fn, 448.0)  # e4m3fn: Micikevicius et al. 2022
SCALED = {form.name: form for form in (INT8, FP8)}


def format_of(name: KVDTypeName, dtype: torch.dtype) -> KVFormat:
    """Returns the format called ``name``. "auto" is ``dtype``, in which the engine computes."""
    if name in SCALED:
        return SCALED[name]
    chosen: torch.dtype = dtype if name == "auto" else getattr(torch, name)
    return KVFormat(str(chosen).removeprefix("torch."), chosen)


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """A copy of a KV block to make before a step: from block ``source`` to block ``target`` of KV cache group
    ``group``."""

    group: int
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class KVPages:
    """The KV cache of one layer. ``numbers`` [blocks, 2 * kv_heads, block_size, head_dim] holds the keys of all heads,
    then the values. ``scales`` bfloat16 [blocks, 2 * kv_heads, block_size] exists if the format has scales."""

    numbers: Tensor
    scales: Tensor | None = None

    @classmethod
    def zeros(
        cls, form: KVFormat, blocks: int, both_heads: int, block_size: int, head_dim: int, device: torch.device
    ) -> KVPages:
        """Allocates a cache filled with zeros. ``both_heads`` is 2 * kv_heads."""
        shape = (blocks, both_heads, block_size)
        numbers = lazy_zeros((*shape, head_dim), form.number, device)
        return cls(numbers, lazy_zeros(shape, SCALE, device) if form.scaled else None)

    @property
    def nbytes(self) -> int:
        """Bytes of numbers and scales."""
        return self.numbers.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def fill_zero(self, blocks: Tensor) -> None:
        """Fills the blocks with the ids ``blocks`` (int64) with zeros."""
        for part in (self.numbers, self.scales):
            if part is not None:
                # As bytes, because index_fill_ does not support every dtype; zero bytes are zero in all of them.
                part.view(torch.uint8).index_fill_(0, blocks, 0)


def quantise(x: Tensor, form: KVFormat) -> tuple[Tensor, Tensor]:
    """Returns ``x`` [..., head_dim] as numbers of ``form``, and their scales [...]. Numbers times scales approximate
    ``x``.

    If ``x`` has NaN or Inf, the scale is NaN or Inf, so that the error is not lost.
    """
    assert form.largest is not None
    wide = x.float()
    scales = (wide.abs().amax(-1) / form.largest).to(SCALE)
    divided = wide / scales.float().unsqueeze(-1)
    divided = divided.nan_to_num_(nan=0.0).clamp_(-form.largest, form.largest)  # NaN: 0 / 0, where all numbers are zero
    return (divided.round_() if form.number == torch.int8 else divided).to(form.number), scales


def dequantise(numbers: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns numbers [..., head_dim] times their scales [...], in ``dtype``."""
    return (numbers.float() * scales.float().unsqueeze(-1)).to(dtype)


def scrub(layers: Sequence[KVPages], groups: Sequence[int], blocks: Sequence[Sequence[int]]) -> None:
    """Fills KV blocks with zeros. ``blocks`` has a list of block ids for each group, ``groups`` the group of each
    layer."""
    for pages, group in zip(layers, groups, strict=True):
        if blocks[group]:
            pages.fill_zero(torch.tensor(blocks[group], dtype=torch.int64, device=pages.numbers.device))


def copy_blocks(layers: Sequence[KVPages], groups: Sequence[int], copies: Sequence[BlockCopy]) -> None:
    """Copies the contents of KV blocks, in the given order. ``groups`` has the group of each layer."""
    for copy in copies:
        for pages, group in zip(layers, groups, strict=True):
            if group == copy.group:
                for part in (pages.numbers, pages.scales):
                    if part is not None:
                        part[copy.target].copy_(part[copy.source])
