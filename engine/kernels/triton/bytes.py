"""Bytes that a kernel reads two at a time, as int16 words, and makes bfloat16 of without a conversion for each.

By PTX, on two words at once, which Triton's interpreter knows nothing of. The first byte of a word is its low one.
"""

from __future__ import annotations

import triton
import triton.language as tl


def _int8(shift: int) -> str:
    """int8 of one byte of both halves of a register. Seven bits become the last of the mantissa of 128.0 in bfloat16;
    the eighth, the sign, makes 128 or 256 of the same kind, which is taken off."""
    return (
        f"{{ .reg .b32 t, u, v, m; shr.b32 t, $1, {shift}; lop3.b32 u, t, 0x007F007F, 0x43004300, 0xEA; "
        "lop3.b32 v, t, 0x00800080, 0x43004300, 0xEA; mov.b32 m, 0xBF80BF80; fma.rn.bf16x2 $0, v, m, u; }"
    )


def _e4m3(shift: int) -> str:
    """float8 e4m3fn likewise, but for its two codes of no number: exponent and mantissa at their places in bfloat16
    are the number times 2 ** -120, also where it is subnormal."""
    return (
        f"{{ .reg .b32 t, u, v, m; shl.b32 t, $1, {shift}; shr.b32 u, t, 4; and.b32 u, u, 0x07F007F0; "
        "lop3.b32 v, t, 0x80008000, u, 0xEA; mov.b32 m, 0x7B807B80; mul.rn.bf16x2 $0, v, m; }"
    )


INT8_LOW, INT8_HIGH = tl.constexpr(_int8(0)), tl.constexpr(_int8(8))
_E4M3_LOW, _E4M3_HIGH = tl.constexpr(_e4m3(8)), tl.constexpr(_e4m3(0))


@triton.jit
def through(words: tl.tensor, code: tl.constexpr) -> tl.tensor:
    """int16 to bfloat16, two to a register."""
    return tl.inline_asm_elementwise(code, "=r,r", [words], dtype=tl.bfloat16, is_pure=True, pack=2)


@triton.jit
def pairs_of_int8(words: tl.tensor) -> tl.tensor:
    """[n, m] int16 to the int8 [n, 2 m] that they hold, as bfloat16."""
    return tl.interleave(through(words, INT8_LOW), through(words, INT8_HIGH))


@triton.jit
def pairs_of_e4m3(words: tl.tensor) -> tl.tensor:
    """[n, m] int16 to the float8 [n, 2 m] that they hold, as bfloat16."""
    return tl.interleave(through(words, _E4M3_LOW), through(words, _E4M3_HIGH))
