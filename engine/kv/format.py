"""How keys and values are stored: in the engine's dtype or another, or in one byte each, scaled by token and head.

A scale is what the numbers of one head's key or value were divided by; one for each keeps an outlier to its own token
(cf. KIVI, Liu et al. 2024, for why coarser scales lose more).
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
    """``number`` is what one number is stored as; ``largest``, with scales only, what the largest of a head becomes."""

    name: str
    number: torch.dtype
    largest: float | None = None

    @property
    def scaled(self) -> bool:
        """Whether a scale belongs to each token and head."""
        return self.largest is not None

    def head_bytes(self, head_dim: int) -> int:
        """Bytes of the key, or the value, of one token in one head."""
        return head_dim * self.number.itemsize + (SCALE.itemsize if self.scaled else 0)


SCALE = torch.bfloat16
INT8 = KVFormat("int8", torch.int8, 127.0)
FP8 = KVFormat("fp8", torch.float8_e4m3fn, 448.0)  # e4m3fn: Micikevicius et al. 2022
SCALED = {form.name: form for form in (INT8, FP8)}


def format_of(name: KVDTypeName, dtype: torch.dtype) -> KVFormat:
    """The format called ``name`` in an engine that computes in ``dtype``."""
    if name in SCALED:
        return SCALED[name]
    chosen: torch.dtype = dtype if name == "auto" else getattr(torch, name)
    return KVFormat(str(chosen).removeprefix("torch."), chosen)


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """The content of a block of a group, to be copied to another before a step writes there."""

    group: int
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class KVPages:
    """The cache of one layer: ``numbers`` [blocks, 2 * kv_heads, block_size, head_dim], keys of all heads, then values;
    ``scales`` bfloat16 [blocks, 2 * kv_heads, block_size] where the format has them."""

    numbers: Tensor
    scales: Tensor | None = None

    @classmethod
    def zeros(
        cls, form: KVFormat, blocks: int, both_heads: int, block_size: int, head_dim: int, device: torch.device
    ) -> KVPages:
        """Pages that hold nothing; ``both_heads`` is 2 * kv_heads."""
        shape = (blocks, both_heads, block_size)
        numbers = lazy_zeros((*shape, head_dim), form.number, device)
        return cls(numbers, lazy_zeros(shape, SCALE, device) if form.scaled else None)

    @property
    def nbytes(self) -> int:
        """Bytes of numbers and scales."""
        return self.numbers.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def fill_zero(self, blocks: Tensor) -> None:
        """Makes ``blocks`` (int64) hold nothing."""
        for part in (self.numbers, self.scales):
            if part is not None:
                # Bytes of zero are a zero in every format, and not every format can be filled.
                part.view(torch.uint8).index_fill_(0, blocks, 0)


def quantise(x: Tensor, form: KVFormat) -> tuple[Tensor, Tensor]:
    """``x`` [..., head_dim] as numbers of ``form`` and their scales [...]; multiplied, they give ``x`` or nearly so.

    What is not finite makes its scale infinite or no number, so that it is not taken for one later.
    """
    assert form.largest is not None
    wide = x.float()
    scales = (wide.abs().amax(-1) / form.largest).to(SCALE)
    divided = wide / scales.float().unsqueeze(-1)
    divided = divided.nan_to_num_(nan=0.0).clamp_(-form.largest, form.largest)  # 0 / 0: nothing but zeros
    return (divided.round_() if form.number == torch.int8 else divided).to(form.number), scales


def dequantise(numbers: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers [..., head_dim] times their scales [...], in ``dtype``."""
    return (numbers.float() * scales.float().unsqueeze(-1)).to(dtype)


def scrub(layers: Sequence[KVPages], groups: Sequence[int], blocks: Sequence[Sequence[int]]) -> None:
    """Makes ``blocks`` of each group hold nothing; ``groups`` has the group of each layer."""
    for pages, group in zip(layers, groups, strict=True):
        if blocks[group]:
            pages.fill_zero(torch.tensor(blocks[group], dtype=torch.int64, device=pages.numbers.device))


def copy_blocks(layers: Sequence[KVPages], groups: Sequence[int], copies: Sequence[BlockCopy]) -> None:
    """Copies the contents of blocks, in this order; ``groups`` has the group of each layer."""
    for copy in copies:
        for pages, group in zip(layers, groups, strict=True):
            if group == copy.group:
                for part in (pages.numbers, pages.scales):
                    if part is not None:
                        part[copy.target].copy_(part[copy.source])
