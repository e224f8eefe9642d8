"""Looks tokens up in an output layer whose weights are packed in groups, so that a tied embedding is not held twice."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.triton.dependent_launch import options, wait_for_inputs
from engine.kernels.triton.products import unpacked
from engine.kernels.triton.variants import Variant
from engine.quant.format import GROUP
from engine.quant.packed_groups import MIDDLE, PackedGroups

_GROUP = tl.constexpr(GROUP)
_MIDDLE = tl.constexpr(MIDDLE)
BLOCK = 256  # words of a program


@triton.jit
def look_up_kernel(
    tokens: tl.tensor,
    numbers: tl.tensor,
    scales: tl.tensor,
    minimums: tl.tensor,
    output: tl.tensor,
    count: tl.tensor,
    inputs: tl.tensor,
    width: tl.tensor,
    bits: tl.constexpr,
    block: tl.constexpr,
    overlap: tl.constexpr,
) -> None:
    """Writes what ``block`` words of the row of one token hold to ``output`` [tokens, inputs]. ``numbers`` [count,
    width], ``scales`` and ``minimums``, which may be None, are those of ``PackedGroups``. Grid (tokens, width /
    block). ``overlap`` is as in ``wait_for_inputs``."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    wait_for_inputs(overlap)
    token = tl.load(tokens + row).to(tl.int64)
    words = tl.load(numbers + token * width + at, mask=at < width, other=0)
    for place in tl.static_range(16 // bits):
        column = place * width + at
        group = column // _GROUP
        factor = (group // 2 * count + token) * 2 + group % 2
        inside = (at < width) & (column < inputs)
        number = unpacked(words, place, bits, False)
        if minimums is not None and bits == 4:
            number += _MIDDLE
        weight = number * tl.load(scales + factor, mask=inside, other=0.0).to(tl.float32)
        if minimums is not None:
            weight += tl.load(minimums + factor, mask=inside, other=0.0).to(tl.float32)
        tl.store(output + row * inputs + column, weight.to(output.dtype.element_ty), mask=inside)


def look_up(tokens: Tensor, table: PackedGroups, dtype: torch.dtype) -> Tensor:
    """Returns the rows ``tokens``, int32 or int64 [count], of ``table``, computed in float32 and rounded to
    ``dtype``."""
    outputs, inputs = table.shape
    width = table.numbers.shape[1]
    output = torch.empty(len(tokens), inputs, dtype=dtype, device=tokens.device)
    overlap, launched = options(tokens.device)
    if len(tokens):
        look_up_kernel[(len(tokens), triton.cdiv(width, BLOCK))](
            tokens,
            table.numbers,
            table.scales,
            table.minimums,
            output,
            outputs,
            inputs,
            width,
            bits=table.bits,
            block=BLOCK,
            overlap=overlap,
            **launched,
        )
    return output


def variants() -> Iterator[Variant]:
    """Yields the variants to compile ahead, of both sizes of a number, to bfloat16."""
    types = {"tokens": "*i32", "numbers": "*i16", "scales": "*fp16", "minimums": "*fp16", "output": "*bf16"}
    sizes = ("count", "inputs", "width")
    for bits in (4, 8):
        constants: dict[str, object] = {"bits": bits, "block": BLOCK, "overlap": True}
        yield Variant(
            f"look up {bits} bits", look_up_kernel, types | dict.fromkeys(sizes, "i32"), constants, frozenset(sizes)
        )
