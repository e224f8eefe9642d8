"""The sums of products with weights whose groups of 32 inputs have a scale and a minimum (quant/packed_groups.py).

Weights with a minimum are scaled in registers: one instruction multiplies two numbers in bfloat16 and adds the minimum.
Without minimums the tensor cores multiply bare numbers where rows are few, and the sums of each group are scaled, in
float32: with 16 rows that takes as many instructions and rounds nothing. With more rows sums outnumber weights.
"""

from __future__ import annotations

import triton
import triton.language as tl

from engine.kernels.triton.products import spread, unpacked
from engine.quant.format import GROUP
from engine.quant.packed_groups import MIDDLE, PAIR

_GROUP = tl.constexpr(GROUP)
_PAIR = tl.constexpr(PAIR)
_MIDDLE = tl.constexpr(MIDDLE)


@triton.jit
def _first(pairs: tl.tensor) -> tl.tensor:
    """Returns the lower half of each 32 bits, a float16, as float32."""
    return pairs.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def _second(pairs: tl.tensor) -> tl.tensor:
    """Returns the upper half of each 32 bits, a float16, as float32."""
    return (pairs >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def _lifted(minimums: tl.tensor, scales: tl.tensor, bits: tl.constexpr) -> tl.tensor:
    """Returns ``minimums``, float32, for numbers around zero. Those of four bits are stored for numbers from zero on,
    as a file has them, so that nothing is lost."""
    return minimums + scales * _MIDDLE if bits == 4 else minimums


@triton.jit
def _inputs(rows: tl.tensor, seen: tl.tensor, column: tl.tensor, inputs: tl.tensor, whole: tl.constexpr) -> tl.tensor:
    """Loads the inputs at ``column`` of all rows, [rows, columns]; those that do not exist are zero."""
    if whole:
        found = tl.load(rows[:, None] + column[None, :], mask=seen[:, None], other=0.0)
    else:
        inside = seen[:, None] & (column < inputs)[None, :]
        found = tl.load(rows[:, None] + column[None, :], mask=inside, other=0.0)
    return found


@triton.jit
def _product(words: tl.tensor, x: tl.tensor, place: tl.constexpr, bits: tl.constexpr, fast: tl.constexpr) -> tl.tensor:
    """Returns the sums of products of one group, float32 [outputs, rows], of numbers without their scale."""
    return tl.dot(unpacked(words, place, bits, fast).to(x.dtype), tl.trans(x), input_precision="ieee")


@triton.jit
def scaled_sums(
    rows: tl.tensor,
    seen: tl.tensor,
    weights: tl.tensor,
    scales: tl.tensor,
    outputs: tl.tensor,
    count: tl.tensor,
    inputs: tl.tensor,
    width: tl.tensor,
    start: tl.tensor,
    end: tl.tensor,
    bits: tl.constexpr,
    fast: tl.constexpr,
    whole: tl.constexpr,
    stages: tl.constexpr,
) -> tl.tensor:
    """Returns the sums of products, [outputs, rows], over the words from ``start`` up to ``end``, multiples of 64, as
    ``sum_words``, whose arguments it has. ``scales`` are those of ``PackedGroups`` without minimums, with the two of a
    pair in one int32. Numbers are multiplied first, and the sums of groups scaled in float32. ``stages`` is the number
    of pipeline stages of the loop. Without it the compiler starts only the loads of operands of products ahead, and
    never one of less than four bytes."""
    size: tl.constexpr = weights.shape[0]
    own = tl.minimum(outputs, count - 1)
    total = tl.zeros((size, rows.shape[0]), tl.float32)
    for first in tl.range(start, end, _PAIR, num_stages=stages):
        at = first + tl.arange(0, _GROUP)
        near = tl.load(weights[:, None] + at[None, :])
        far = tl.load(weights[:, None] + (at + _GROUP)[None, :])
        for place in tl.static_range(16 // bits):
            column = place * width + at
            x_near = _inputs(rows, seen, column, inputs, whole)
            x_far = _inputs(rows, seen, column + _GROUP, inputs, whole)
            line = (place * width + first) // _PAIR * count
            pair = tl.load(scales + line + own)
            total += _product(near, x_near, place, bits, fast) * _first(pair)[:, None]
            total += _product(far, x_far, place, bits, fast) * _second(pair)[:, None]
    return total


@triton.jit
def _factors(pairs: tl.tensor, own: tl.tensor) -> tl.tensor:
    """Loads the factors, as float32 [outputs, 2], of two groups. ``pairs`` points to those of the first output."""
    return tl.load(pairs + own[:, None] * 2 + tl.arange(0, 2)[None, :]).to(tl.float32)


@triton.jit
def sum_scaled(
    rows: tl.tensor,
    seen: tl.tensor,
    weights: tl.tensor,
    scales: tl.tensor,
    minimums: tl.tensor,
    outputs: tl.tensor,
    count: tl.tensor,
    inputs: tl.tensor,
    width: tl.tensor,
    start: tl.tensor,
    end: tl.tensor,
    bits: tl.constexpr,
    fast: tl.constexpr,
    whole: tl.constexpr,
) -> tl.tensor:
    """Returns the same as ``scaled_sums``, but weights are scaled, and rounded to the dtype of the inputs, before they
    are multiplied; if ``fast``, scales and minimums are too. ``scales`` and ``minimums``, which may be None, are
    float16."""
    size: tl.constexpr = weights.shape[0]
    kind: tl.constexpr = tl.bfloat16 if fast else tl.float32
    own = tl.minimum(outputs, count - 1)
    total = tl.zeros((size, rows.shape[0]), tl.float32)
    for first in range(start, end, _PAIR):
        at = first + tl.arange(0, _PAIR)
        words = tl.load(weights[:, None] + at[None, :])
        for place in tl.static_range(16 // bits):
            x = _inputs(rows, seen, place * width + at, inputs, whole)
            line = (place * width + first) // _PAIR * count
            scale = _factors(scales + line * 2, own)
            w = unpacked(words, place, bits, fast) * spread(scale.to(kind), size, _PAIR)
            if minimums is not None:
                minimum = _lifted(_factors(minimums + line * 2, own), scale, bits)
                w += spread(minimum.to(kind), size, _PAIR)
            total = tl.dot(w.to(x.dtype), tl.trans(x), total, input_precision="ieee")
    return total
