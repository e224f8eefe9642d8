"""The random numbers of ``engine.decode.random``, made where they are used: functions of (seed, position, token)."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _finished(value: tl.tensor) -> tl.tensor:
    """SplitMix64's finaliser (Steele et al. 2014) of uint64."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB
    return value ^ (value >> 31)


@triton.jit
def noise_key(seed: tl.tensor, position: tl.tensor) -> tl.tensor:
    """Returns the uint64 from which a row's random numbers are derived. ``seed``, int64, and ``position``, int32, are
    scalars."""
    mixed = _finished(seed.to(tl.uint64, bitcast=True) + 0x9E3779B97F4A7C15)
    return _finished(mixed + position.to(tl.uint64) + 0x9E3779B97F4A7C15)


@triton.jit
def _log(x: tl.tensor) -> tl.tensor:
    """Natural logarithm of normal float32, to its last bit or the one before: what the hardware approximates is off by
    more near 1, where the winners of a race lie. fdlibm's way: x = 2 ** k * (1 + f), and a polynomial in f / (2 + f).
    """
    bits = x.to(tl.int32, bitcast=True)
    k = (bits - 0x3F3504F3) >> 23  # so that 1 + f lies between the roots of 1/2 and of 2
    f = (bits - (k << 23)).to(tl.float32, bitcast=True) - 1.0
    s = f / (2.0 + f)
    z = s * s
    r = z * (0.66666662693 + z * (0.40000972152 + z * (0.28498786688 + z * 0.24279078841)))
    half = 0.5 * f * f
    exponent = k.to(tl.float32)
    return exponent * 0.69313812256 - ((half - (s * (half + r) + exponent * 9.0580006145e-06)) - f)


@triton.jit
def gumbel(key: tl.tensor, tokens: tl.tensor) -> tl.tensor:
    """Returns standard Gumbel noise, -log(-log(1 - u)), as float32, for ``tokens``, int32 of any shape."""
    bits = _finished(key + (tokens + 1).to(tl.uint64) * 0x9E3779B97F4A7C15)
    uniform = (bits >> 11).to(tl.int64).to(tl.float32) * 1.1102230246251565e-16
    uniform = tl.minimum(tl.maximum(uniform, 5.551115123125783e-17), 0.9999999403953552)
    rest = 1.0 - uniform
    # What rounding took from the rest is a share of its logarithm, and all of it where u is tiny.
    lost = (1.0 - rest) - uniform
    return -_log(-(_log(rest) + lost / rest))
