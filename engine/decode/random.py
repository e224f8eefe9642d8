"""Random numbers that are a function of seed, position and token only.

The generator is counter-based (Salmon et al. 2011) and has no state. So a request draws the same numbers alone or in a
batch, and after it was resumed in another engine. The mixing function is SplitMix64's (Steele et al. 2014).
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.seeds import GAMMA, MASK, MIX_1, MIX_2, mix


def gumbel(seeds: list[int], positions: list[int], tokens: Tensor) -> Tensor:
    """Returns standard Gumbel noise, float32 [len(seeds), n], for ``tokens`` [len(seeds) or 1, n] int64. Each number is
    a function of its row's seed and position and of its token id."""
    keys = [_signed(mix(mix(seed & MASK) + at & MASK)) for seed, at in zip(seeds, positions, strict=True)]
    counters = (tokens + 1).mul_(_signed(GAMMA))
    bits = _mix_tensor(torch.tensor(keys, dtype=torch.int64, device=tokens.device).unsqueeze(1) + counters)
    # 53 bits as float32: precise near 0, where the largest noise comes from, and clamped below 1.
    uniform = _shift_right(bits, 11).to(torch.float32).mul_(2.0**-53).clamp_(2.0**-54, 1 - 2.0**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def _mix_tensor(value: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64, in place; products wrap as unsigned ones do."""
    value.bitwise_xor_(_shift_right(value, 30)).mul_(_signed(MIX_1))
    value.bitwise_xor_(_shift_right(value, 27)).mul_(_signed(MIX_2))
    return value.bitwise_xor_(_shift_right(value, 31))


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own keeps the sign."""
    return (value >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """Returns the int64 with the same bits as an unsigned ``value``."""
    return value - 2**64 if value >= 2**63 else value
