"""Unpacks pairs of 8-bit values from int16 words to bfloat16 with inline PTX.

The low byte comes first. The Triton interpreter cannot run it.
"""

from __future__ import annotations

import triton
import triton.language as tl


def _int8(shift: int) -> str:
    """Returns PTX that converts one int8 byte of each 16-bit half, ``shift`` bits from its low end: OR the low 7 bits
    into 128.0, then subtract 128, or 256 if the sign bit is set."""
    return (
        f"{{ .reg .b32 t, u, v, m; shr.b32 t, $1, {shift}; lop3.b32 u, t, 0x007F007F, 0x43004300, 0xEA; "
        "lop3.b32 v, t, 0x00800080, 0x43004300, 0xEA; mov.b32 m, 0xBF80BF80; fma.rn.bf16x2 $0, v, m, u; }"
    )


def _e4m3(shift: int) -> str:
    """Returns PTX that converts one float8 e4m3fn byte of each 16-bit half, ``shift`` bits from its high end.

    The shifted bits are the value times 2^-120, subnormals included; PTX multiplies by 2^120. NaN codes become ±480.
    """
    return (
        f"{{ .reg .b32 t, u, v, m; shl.b32 t, $1, {shift}; shr.b32 u, t, 4; and.b32 u, u, 0x07F007F0; "
        "lop3.b32 v, t, 0x80008000, u, 0xEA; mov.b32 m, 0x7B807B80; mul.rn.bf16x2 $0, v, m; }"
    )


INT8_LOW, INT8_HIGH = tl.constexpr(_int8(0)), tl.constexpr(_int8(8))
_E4M3_LOW, _E4M3_HIGH = tl.constexpr(_e4m3(8)), tl.constexpr(_e4m3(0))


@triton.jit
def through(words: tl.tensor, code: tl.constexpr) -> tl.tensor:
    """Returns bfloat16 of ``words`` by the PTX ``code``, which converts two int16 words at a time, as one register."""
    return tl.inline_asm_elementwise(code, "=r,r", [words], dtype=tl.bfloat16, is_pure=True, pack=2)


@triton.jit
def pairs_of_int8(words: tl.tensor) -> tl.tensor:
    """Unpacks int8 pairs: int16 [n, m] to bfloat16 [n, 2m]."""
    return tl.interleave(through(words, INT8_LOW), through(words, INT8_HIGH))


@triton.jit
def pairs_of_e4m3(words: tl.tensor) -> tl.tensor:
    """Unpacks float8 e4m3fn pairs: int16 [n, m] to bfloat16 [n, 2m]."""
    return tl.interleave(through(words, _E4M3_LOW), through(words, _E4M3_HIGH))
