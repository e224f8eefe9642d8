"""Quantises to one-byte numbers with scales, bitwise equal to ``engine.kv.format.quantise``.

Rounding is done on the bits of float32, in the same way on every device and in the interpreter.
"""

# ruff: noqa: N803 (what is known when a kernel is compiled stands in capitals)
from __future__ import annotations

import triton
import triton.language as tl

from engine.kv.format import FP8, INT8, KVPages

FORMS = {INT8.number: "int8", FP8.number: "fp8"}


def form_of(cache: KVPages) -> str:
    """Returns the kernels' name of a cache's format: "int8" and "fp8", which have scales, or "plain", which has
    none."""
    return "plain" if cache.scales is None else FORMS[cache.numbers.dtype]


@triton.jit
def to_bfloat16(x: tl.tensor) -> tl.tensor:
    """Returns ``x``, float32, rounded to the nearest bfloat16, half to even, still as float32. NaN stays NaN."""
    bits = x.to(tl.int32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
    return tl.where(x == x, rounded.to(tl.float32, bitcast=True), float("nan"))


@triton.jit
def to_int8(x: tl.tensor) -> tl.tensor:
    """Returns ``x``, float32 with absolute values of at most 127, rounded to the nearest integers, half to even."""
    # Numbers beyond 2 ** 23 have no halves: adding such a one rounds, half to even.
    return ((x + 12582912.0) - 12582912.0).to(tl.int8)


@triton.jit
def to_e4m3(x: tl.tensor) -> tl.tensor:
    """Returns the bytes of ``x``, float32 with absolute values of at most 448, rounded to float8 e4m3fn (Micikevicius
    et al. 2022). It does not use a cast, because in Triton's interpreter a cast drops the carry of a number that is
    rounded up to a power of two."""
    bits = x.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    # Three bits of the mantissa are kept, and the exponent is counted from -7 instead of -127.
    normal = ((size + 0x7FFFF + ((size >> 20) & 1)) >> 20) - (120 << 3)
    # Below 2 ** -6 the numbers are multiples of 2 ** -9.
    small = ((tl.abs(x) * 512.0 + 12582912.0) - 12582912.0).to(tl.int32)
    return (tl.where(size < 0x3C800000, small, normal) | ((bits >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def scales_of(low: tl.tensor, high: tl.tensor, FORM: tl.constexpr) -> tl.tensor:
    """Returns the scales, float32 [heads], of heads whose two halves are ``low`` and ``high``, float32 [heads,
    half]."""
    # Without their sign, the bits of floats are in the order of the numbers, and those of no numbers are the largest.
    largest = tl.maximum(low.to(tl.int32, bitcast=True) & 0x7FFFFFFF, high.to(tl.int32, bitcast=True) & 0x7FFFFFFF)
    largest = tl.max(largest, 1).to(tl.float32, bitcast=True)
    return to_bfloat16(tl.math.div_rn(largest, 127.0 if FORM == "int8" else 448.0))


@triton.jit
def quantised(x: tl.tensor, scale: tl.tensor, FORM: tl.constexpr) -> tl.tensor:
    """Returns ``x``, float32, divided by ``scale``, which is broadcast, then rounded and clamped to the range of the
    format: int8 (127) if FORM is "int8", else the bytes of e4m3 (448). 0 / 0 becomes 0."""
    bound = 127.0 if FORM == "int8" else 448.0
    divided = tl.math.div_rn(x, scale)
    divided = tl.where(divided == divided, divided, 0.0)  # 0 / 0: nothing but zeros
    divided = tl.minimum(tl.maximum(divided, -bound), bound)
    return to_int8(divided) if FORM == "int8" else to_e4m3(divided)
