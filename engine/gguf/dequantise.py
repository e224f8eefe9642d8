"""Dequantises each GGUF tensor type to float32, as ggml-quants.c defines it.

Every function takes blocks, uint8 [count, bytes of a block], and returns float32 [count, weights of a block].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from engine.gguf import types
from engine.gguf.types import TensorType

LOWER_HALVES = np.uint64(0x0F0F0F0F0F0F0F0F)
MAX_WEIGHTS = 1 << 18  # that are worked on at a time, so that temporary copies stay small

NON_LINEAR = torch.tensor(
    [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241],
    dtype=torch.uint8,
)
"""The 16 numbers of IQ4_NL and IQ4_XS, closer to each other near zero; 128 more than they are."""


def dequantised(raw: Tensor, kind: TensorType, dtype: torch.dtype) -> Tensor:
    """Returns the weights [rows, columns] of ``raw``, uint8 [rows, bytes of a row] of the type ``kind``, in
    ``dtype``."""
    if not kind.quantised:
        return raw.contiguous().view(_PLAIN[kind.name]).to(dtype)
    result = torch.empty(len(raw), raw.shape[1] // kind.nbytes * kind.weights, dtype=dtype)
    dequantise(raw, kind, result)
    return result


def dequantise(raw: Tensor, kind: TensorType, result: Tensor) -> None:
    """Writes the weights of ``raw``, as in ``dequantised`` and of a quantised type, to ``result`` [rows, columns]."""
    rows, columns = result.shape
    step = max(1, MAX_WEIGHTS // columns)
    for first in range(0, rows, step):
        part = raw[first : first + step]
        result[first : first + step] = _BLOCKS[kind.name](part.reshape(-1, kind.nbytes)).view(len(part), columns)


def halves(blocks: Tensor, start: int) -> Tensor:
    """Returns the float16 at byte ``start`` of each block, [count, 1]."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16)


def nibbles(packed: Tensor) -> Tensor:
    """Returns the lower four bits of all bytes [..., n], then the upper four bits: uint8 [..., 2 n]. ``n`` must be a
    multiple of eight, since eight bytes are unpacked at a time."""
    words = np.ascontiguousarray(packed.numpy()).view(np.uint64)
    halves = np.empty((*words.shape[:-1], 2, words.shape[-1]), np.uint64)
    np.bitwise_and(words, LOWER_HALVES, out=halves[..., 0, :])
    np.bitwise_and(words >> np.uint64(4), LOWER_HALVES, out=halves[..., 1, :])
    return torch.from_numpy(halves.view(np.uint8)).flatten(-2)


def fifth_bits(packed: Tensor) -> Tensor:
    """Returns the bits of four bytes, uint8 [count, 4], lowest bit first, each as 16 or 0: [count, 32]."""
    places = torch.arange(8, dtype=torch.uint8)
    return ((packed.unsqueeze(-1) >> places & 1) << 4).flatten(1)


def k_scales(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the eight scales and eight minimums, of six bits each, in the 12 bytes [count, 12] of Q4_K and Q5_K: two
    tensors, uint8 [count, 8]."""
    low, middle, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = torch.cat((low & 63, high & 15 | low >> 6 << 4), 1)
    minimums = torch.cat((middle & 63, high >> 4 | middle >> 6 << 4), 1)
    return scales, minimums


def _q4_0(blocks: Tensor) -> Tensor:
    return (nibbles(blocks[:, 2:]).float() - 8) * halves(blocks, 0).float()


def _q4_1(blocks: Tensor) -> Tensor:
    return nibbles(blocks[:, 4:]) * halves(blocks, 0).float() + halves(blocks, 2).float()


def _q5_0(blocks: Tensor) -> Tensor:
    numbers = nibbles(blocks[:, 6:]) | fifth_bits(blocks[:, 2:6])
    return (numbers.float() - 16) * halves(blocks, 0).float()


def _q5_1(blocks: Tensor) -> Tensor:
    numbers = nibbles(blocks[:, 8:]) | fifth_bits(blocks[:, 4:8])
    return numbers * halves(blocks, 0).float() + halves(blocks, 2).float()


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].contiguous().view(torch.int8) * halves(blocks, 0).float()


def pairs_of_bits(packed: Tensor) -> Tensor:
    """Returns the two-bit numbers in 64 bytes [count, 64] as uint8 [count, 256]: of each half of 32 bytes, first the
    lowest two bits of all bytes, then the next two, and so on."""
    runs = packed.view(-1, 2, 1, 32)
    places = torch.tensor([0, 2, 4, 6], dtype=torch.uint8).view(1, 1, 4, 1)
    return (runs >> places & 3).flatten(1)


def _q2_k(blocks: Tensor) -> Tensor:
    packed, d, dmin = blocks[:, :16], halves(blocks, 80).float(), halves(blocks, 82).float()
    numbers = pairs_of_bits(blocks[:, 16:80].contiguous()).view(-1, 16, 16)
    scales, minimums = (d * (packed & 15)).unsqueeze(-1), (dmin * (packed >> 4)).unsqueeze(-1)
    return (numbers * scales - minimums).flatten(1)


def _q3_k(blocks: Tensor) -> Tensor:
    high, low = blocks[:, :32], blocks[:, 32:96].contiguous()
    places = torch.arange(8, dtype=torch.uint8).view(1, 8, 1)
    third = (high.unsqueeze(1) >> places & 1).flatten(1)
    numbers = (pairs_of_bits(low) | third << 2).float() - 4
    packed, top = nibbles(blocks[:, 96:104]), blocks[:, 104:108]
    two = torch.tensor([0, 2, 4, 6], dtype=torch.uint8).view(1, 4, 1)
    scales = (packed | (top.unsqueeze(1) >> two & 3).flatten(1) << 4).float() - 32
    return (numbers.view(-1, 16, 16) * (halves(blocks, 108).float() * scales).unsqueeze(-1)).flatten(1)


def _k_groups(blocks: Tensor, numbers: Tensor) -> Tensor:
    """Eight groups of 32 with a scale and a minimum each, whose own factors are in the first four bytes."""
    scales, minimums = k_scales(blocks[:, 4:16])
    by, less = halves(blocks, 0).float() * scales, halves(blocks, 2).float() * minimums
    return (numbers * by.unsqueeze(-1) - less.unsqueeze(-1)).flatten(1)


def k_numbers(packed: Tensor) -> Tensor:
    """Returns the four-bit numbers in 128 bytes [count, 128] as uint8 [count, 8, 32]: of each 32 bytes, first the lower
    four bits of all, then the upper four."""
    return nibbles(packed.reshape(-1, 4, 32)).view(-1, 8, 32)


def _q4_k(blocks: Tensor) -> Tensor:
    return _k_groups(blocks, k_numbers(blocks[:, 16:]))


def _q5_k(blocks: Tensor) -> Tensor:
    return _k_groups(blocks, k_numbers(blocks[:, 48:]) | k_fifth_bits(blocks[:, 16:48]))


def k_fifth_bits(packed: Tensor) -> Tensor:
    """Returns the fifth bits of eight groups, as 16 or 0, uint8 [count, 8, 32]. Bit i of each of the 32 bytes [count,
    32] belongs to group i."""
    places = torch.arange(8, dtype=torch.uint8).view(1, 8, 1)
    return (packed.unsqueeze(1) >> places & 1) << 4


def _q6_k(blocks: Tensor) -> Tensor:
    low = nibbles(blocks[:, :128].reshape(-1, 2, 64))
    places = torch.tensor([0, 2, 4, 6], dtype=torch.uint8).view(1, 1, 4, 1)
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> places & 3).flatten(2)
    numbers = (low | high << 4).view(-1, 16, 16).float() - 32
    scales = blocks[:, 192:208].contiguous().view(torch.int8) * halves(blocks, 208).float()
    return (numbers * scales.unsqueeze(-1)).flatten(1)


def table_numbers(packed: Tensor) -> Tensor:
    """Returns the numbers that nibbles [..., n] stand for in IQ4_NL and IQ4_XS, as in ``nibbles``: uint8 [..., 2 n],
    128 more than they are."""
    return NON_LINEAR[nibbles(packed).int()]


def iq4_scales(blocks: Tensor) -> Tensor:
    """Returns the scales of the eight groups of IQ4_XS, float32 [count, 8]: six bits each, four of them in the bytes 4
    to 7 and the upper two in the bytes 2 and 3, times the float16 before them."""
    low = torch.stack((blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4), -1).flatten(1)
    two = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)
    high = (blocks[:, 2:4].unsqueeze(-1) >> two & 3).flatten(1)
    return halves(blocks, 0).float() * ((low | high << 4).float() - 32)


def iq4_numbers(blocks: Tensor) -> Tensor:
    """Returns the numbers of IQ4_XS, uint8 [count, 8, 32], 128 more than they are."""
    return table_numbers(blocks[:, 8:].reshape(-1, 8, 16))


def _iq4_nl(blocks: Tensor) -> Tensor:
    return (table_numbers(blocks[:, 2:]).float() - 128) * halves(blocks, 0).float()


def _iq4_xs(blocks: Tensor) -> Tensor:
    return ((iq4_numbers(blocks).float() - 128) * iq4_scales(blocks).unsqueeze(-1)).flatten(1)


_PLAIN: Mapping[str, torch.dtype] = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BLOCKS: Mapping[str, Callable[[Tensor], Tensor]] = {
    types.Q4_0.name: _q4_0,
    types.Q4_1.name: _q4_1,
    types.Q5_0.name: _q5_0,
    types.Q5_1.name: _q5_1,
    types.Q8_0.name: _q8_0,
    types.Q2_K.name: _q2_k,
    types.Q3_K.name: _q3_k,
    types.Q4_K.name: _q4_k,
    types.Q5_K.name: _q5_k,
    types.Q6_K.name: _q6_k,
    types.IQ4_NL.name: _iq4_nl,
    types.IQ4_XS.name: _iq4_xs,
}
