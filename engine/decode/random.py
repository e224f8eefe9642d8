"""Random numbers that are a function of seed, position and token only.

The generator is counter-based (Salmon et al. 2011) and has no state. So a request draws the same numbers alone or in a
batch, and after it was resumed in another engine. The mixing function is SplitMix64's (Steele et al. 2014).
"""

from __future__ import annotations

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = 2**64 - 1


def gumbel(seeds: list[int], positions: list[int], tokens: Tensor) -> Tensor:
    """Returns standard Gumbel noise, float32 [len(seeds), n], for ``tokens`` [len(seeds) or 1, n] int64. Each number is
    a function of its row's seed and position and of its token id."""
    keys = [_signed(_mix(_mix(seed & _MASK) + at & _MASK)) for seed, at in zip(seeds, positions, strict=True)]
    counters = (tokens + 1).mul_(_signed(_GAMMA))
    bits = _mix_tensor(torch.tensor(keys, dtype=torch.int64, device=tokens.device).unsqueeze(1) + counters)
    # 53 bits as float32: precise near 0, where the largest noise comes from, and clamped below 1.
    uniform = _shift_right(bits, 11).to(torch.float32).mul_(2.0**-53).clamp_(2.0**-54, 1 - 2.0**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def choice_seed(seed: int, choice: int) -> int:
    """Returns the seed of choice number ``choice`` of a request. The first choice has the request's seed."""
    return seed if choice == 0 else _mix(_mix(seed & _MASK) ^ choice) >> 1


def _mix(value: int) -> int:
    """SplitMix64 on an unsigned 64-bit integer."""
    value = value + _GAMMA & _MASK
    value = (value ^ value >> 30) * _MIX_1 & _MASK
    value = (value ^ value >> 27) * _MIX_2 & _MASK
    return value ^ value >> 31


def _mix_tensor(value: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64, in place; products wrap as unsigned ones do."""
    value.bitwise_xor_(_shift_right(value, 30)).mul_(_signed(_MIX_1))
    value.bitwise_xor_(_shift_right(value, 27)).mul_(_signed(_MIX_2))
    return value.bitwise_xor_(_shift_right(value, 31))


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own keeps the sign."""
    return (value >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """Returns the int64 with the same bits as an unsigned ``value``."""
    return value - 2**64 if value >= 2**63 else value
