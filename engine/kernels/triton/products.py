"""The parts that the matrix product kernels share: the order of tiles, and the sum over a part of the inputs.

A tile is always [outputs, rows], with the weights as the left operand: weights may then be unpacked in registers for
the tensor cores, and few rows make a narrow tile rather than a mostly empty one.
"""

from __future__ import annotations

import triton
import triton.language as tl

from engine.kernels.triton.bytes import INT8_HIGH, INT8_LOW, through
from engine.quant.format import GROUP

_GROUP = tl.constexpr(GROUP)
_OFFSET = tl.constexpr(136.0)  # 128, the number that 0x4300 is in bfloat16, and 8, which is added to what is stored


def _four_bits(shift: int) -> str:
    """PTX that makes 128 + number, without a conversion, of four bits of both halves of a register: they become the
    last of the mantissa of 128.0 in bfloat16."""
    return f"{{ .reg .b32 t; shr.b32 t, $1, {shift}; lop3.b32 $0, t, 0x000F000F, 0x43004300, 0xEA; }}"


_NIBBLE_0, _NIBBLE_1, _NIBBLE_2, _NIBBLE_3 = (tl.constexpr(_four_bits(shift)) for shift in (0, 4, 8, 12))


@triton.jit
def tile_order(tile: tl.tensor, row_tiles: tl.tensor, output_tiles: tl.tensor, group: tl.constexpr) -> tl.tensor:
    """Returns the row tile and the output tile of the program ``tile``. Programs go through ``group`` row tiles before
    the next output tile."""
    span = group * output_tiles
    first = tile // span * group
    size = tl.minimum(row_tiles - first, group)
    return first + tile % span % size, tile % span // size


@triton.jit
def sum_plain(
    rows: tl.tensor,
    seen: tl.tensor,
    weights: tl.tensor,
    start: tl.tensor,
    end: tl.tensor,
    whole: tl.constexpr,
    step: tl.constexpr,
) -> tl.tensor:
    """Returns the sums of products, [outputs, rows], over the inputs from ``start`` up to ``end``. ``rows`` and
    ``weights`` point to the starts of rows of inputs and of weights. ``whole``: the inputs are a multiple of ``step``.
    ``seen``: whether a row exists; others count as zeros. ``step`` inputs are multiplied at a time."""
    total = tl.zeros((weights.shape[0], rows.shape[0]), tl.float32)
    for first in range(start, end, step):
        at = first + tl.arange(0, step)
        if whole:
            x = tl.load(rows[:, None] + at[None, :], mask=seen[:, None], other=0.0)
            w = tl.load(weights[:, None] + at[None, :])
        else:
            inside = at < end
            x = tl.load(rows[:, None] + at[None, :], mask=seen[:, None] & inside[None, :], other=0.0)
            w = tl.load(weights[:, None] + at[None, :], mask=inside[None, :], other=0.0)
        total = tl.dot(w, tl.trans(x), total, input_precision="ieee")
    return total


@triton.jit
def sum_eights(
    rows: tl.tensor,
    seen: tl.tensor,
    weights: tl.tensor,
    start: tl.tensor,
    end: tl.tensor,
    whole: tl.constexpr,
    step: tl.constexpr,
) -> tl.tensor:
    """Returns the sums of products, [outputs, rows], as ``sum_plain``, whose arguments it has, but of one-byte numbers
    on both sides: int8, summed in int32, or float8."""
    exact: tl.constexpr = rows.dtype.element_ty == tl.int8
    kind: tl.constexpr = tl.int32 if exact else tl.float32
    none: tl.constexpr = 0 if exact else 0.0
    total = tl.zeros((weights.shape[0], rows.shape[0]), kind)
    for first in range(start, end, step):
        at = first + tl.arange(0, step)
        if whole:
            x = tl.load(rows[:, None] + at[None, :], mask=seen[:, None], other=none)
            w = tl.load(weights[:, None] + at[None, :])
        else:
            inside = at < end
            x = tl.load(rows[:, None] + at[None, :], mask=seen[:, None] & inside[None, :], other=none)
            w = tl.load(weights[:, None] + at[None, :], mask=inside[None, :], other=none)
        if exact:
            total = tl.dot(w, tl.trans(x), total, out_dtype=tl.int32)
        else:
            # The tensor cores keep about 14 bits of a sum of float8 products; it is added up in float32 so often.
            total = tl.dot(w, tl.trans(x), total, max_num_imprecise_acc=128 if step > 128 else step)
    return total


@triton.jit
def _unpacked_fast(words: tl.tensor, place: tl.constexpr, bits: tl.constexpr) -> tl.tensor:
    if bits == 8:
        numbers = through(words, INT8_LOW if place == 0 else INT8_HIGH)
    elif place < 2:
        numbers = through(words, _NIBBLE_0 if place == 0 else _NIBBLE_1) - _OFFSET
    else:
        numbers = through(words, _NIBBLE_2 if place == 2 else _NIBBLE_3) - _OFFSET
    return numbers


@triton.jit
def unpacked(words: tl.tensor, place: tl.constexpr, bits: tl.constexpr, fast: tl.constexpr) -> tl.tensor:
    """Returns number ``place`` of each of the int16 ``words``, exactly: in bfloat16 if ``fast``, with PTX, which
    Triton's interpreter cannot run; else in float32. A word has 16 / ``bits`` numbers, the lowest bits first. Those of
    4 bits are stored with 8 added, those of 8 bits in two's complement."""
    if fast:
        numbers = _unpacked_fast(words, place, bits)
    elif bits == 4:
        numbers = ((words >> place * bits) & 15).to(tl.float32) - 8.0
    else:
        numbers = (words >> place * bits).to(tl.int8).to(tl.float32)
    return numbers


@triton.jit
def spread(scales: tl.tensor, outputs: tl.constexpr, inputs: tl.constexpr) -> tl.tensor:
    """Returns ``scales`` [outputs, groups] repeated for each weight of a tile: [outputs, inputs]."""
    grouped = tl.broadcast_to(scales[:, :, None], (outputs, inputs // _GROUP, _GROUP))
    return tl.reshape(grouped, (outputs, inputs))


@triton.jit
def sum_words(
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
    step: tl.constexpr,
) -> tl.tensor:
    """Returns the sums as ``sum_plain`` does, for weights packed into words (quant/matrix.py), over the words from
    ``start`` up to ``end`` of a row of ``width`` words, which are ``inputs`` numbers. Scales of groups are applied
    here, scales of outputs (if ``bits`` is 8) are not. ``outputs`` are the outputs of this tile, ``count`` is the
    number of outputs of the matrix. ``bits``, of a number, is 4 or 8; ``fast`` is as in ``unpacked``; the other
    arguments are those of ``sum_plain``."""
    size: tl.constexpr = weights.shape[0]
    total = tl.zeros((size, rows.shape[0]), tl.float32)
    for first in range(start, end, step):
        at = first + tl.arange(0, step)
        group = first // _GROUP + tl.arange(0, step // _GROUP)
        if whole:
            words = tl.load(weights[:, None] + at[None, :])
        else:
            words = tl.load(weights[:, None] + at[None, :], mask=(at < end)[None, :], other=0)
        for place in tl.static_range(16 // bits):
            column = place * width + at
            if whole:
                x = tl.load(rows[:, None] + column[None, :], mask=seen[:, None], other=0.0)
            else:
                inside = (at < end) & (column < inputs)
                x = tl.load(rows[:, None] + column[None, :], mask=seen[:, None] & inside[None, :], other=0.0)
            w = unpacked(words, place, bits, fast)
            if bits == 4:
                known = (outputs < count)[None, :]
                if not whole:
                    known = known & (group * _GROUP < end)[:, None]
                line = (place * (width // _GROUP) + group)[:, None] * count
                s = tl.load(scales + line + outputs[None, :], mask=known, other=0.0)
                w = w * spread(tl.trans(s if fast else s.to(tl.float32)), size, step)
            total = tl.dot(w.to(x.dtype), tl.trans(x), total, input_precision="ieee")
    return total


@triton.jit
def store_tile(
    total: tl.tensor,
    target: tl.tensor,
    by_output: tl.tensor,
    by_row: tl.tensor,
    bias: tl.tensor,
    outputs: tl.tensor,
    count: tl.tensor,
    seen: tl.tensor,
) -> tl.tensor:
    """Writes a tile [outputs, rows], multiplied by the scales of outputs and of rows, if any, plus the bias. ``target``
    points to the starts of the rows. ``total`` has the sums; outputs from ``count`` on, and rows that are not ``seen``,
    are not written."""
    kept = outputs < count
    result = total.to(tl.float32)
    if by_output is not None:
        result = result * tl.load(by_output + outputs, mask=kept, other=0.0)[:, None]
    if by_row is not None:
        result = result * by_row[None, :]
    if bias is not None:
        result += tl.load(bias + outputs, mask=kept, other=0.0).to(tl.float32)[:, None]
    tl.store(target[None, :] + outputs[:, None], result.to(target.dtype.element_ty), mask=kept[:, None] & seen[None, :])
