"""Matrix products whose order of summation does not depend on the number of rows.

cuBLAS chooses its kernel by the number of rows, so that the last bits of a row depend on the batch. Here the tilings
for few and for many rows add up in the same order, and the split of the inputs depends on the shape of the weights
alone (cf. Thinking Machines 2025, "Defeating nondeterminism in LLM inference"): a part that has its own program where
there are few rows is a loop of its own where there are many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.triton.dependent_launch import options, wait_for_inputs
from engine.kernels.triton.group_sums import scaled_sums, sum_scaled
from engine.kernels.triton.products import store_tile, sum_eights, sum_plain, sum_words, tile_order
from engine.kernels.triton.streamed import can_stream, streamed_matmul
from engine.kernels.triton.tiling import ARRIVALS, DEFAULT, FIXED_OUTPUTS, FIXED_STEP, Kind, Tiling, tiling
from engine.kernels.triton.variants import Variant
from engine.quant.format import FP8, WeightFormat
from engine.quant.matrix import WORD


@triton.jit
def _part(
    x: tl.tensor,
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
    step: tl.constexpr,
    grouped: tl.constexpr,
    stages: tl.constexpr,
) -> tl.tensor:
    """The sum over one part of the inputs, of whatever is multiplied."""
    if grouped == "sums":
        total = scaled_sums(
            x, seen, weights, scales, outputs, count, inputs, width, start, end, bits, fast, whole, stages
        )
    elif grouped == "weights":
        total = sum_scaled(
            x, seen, weights, scales, minimums, outputs, count, inputs, width, start, end, bits, fast, whole
        )
    elif weights.dtype.element_ty == tl.int16:
        total = sum_words(x, seen, weights, scales, outputs, count, inputs, width, start, end, bits, fast, whole, step)
    elif x.dtype.element_ty.primitive_bitwidth == 8:
        total = sum_eights(x, seen, weights, start, end, whole, step)
    else:
        total = sum_plain(x, seen, weights, start, end, whole, step)
    return total


@triton.jit
def product_kernel(
    x: tl.tensor,
    weights: tl.tensor,
    scales: tl.tensor,
    minimums: tl.tensor,
    row_scales: tl.tensor,
    bias: tl.tensor,
    output: tl.tensor,
    partial: tl.tensor,
    arrivals: tl.tensor,
    rows: tl.tensor,
    count: tl.tensor,
    inputs: tl.tensor,
    width: tl.tensor,
    stride: tl.tensor,
    length: tl.tensor,
    bits: tl.constexpr,
    fast: tl.constexpr,
    whole: tl.constexpr,
    parts: tl.constexpr,
    alone: tl.constexpr,
    block_rows: tl.constexpr,
    block_outputs: tl.constexpr,
    step: tl.constexpr,
    group: tl.constexpr,
    grouped: tl.constexpr,
    stages: tl.constexpr,
    overlap: tl.constexpr,
) -> None:
    """Computes one tile of the product: one of its ``parts`` of ``length`` inputs if each is computed ``alone``, else
    all parts.

    The last program of a tile to finish adds up the partial sums that all its programs have left in ``partial``, in
    their order. The product is of ``x`` [rows, inputs], whose rows are ``stride`` elements apart, and ``weights``
    [count, width], of words with ``bits`` bits per number if they are int16. ``scales`` and ``minimums`` are those of
    the weights, ``row_scales`` [rows] those of ``x``. ``grouped`` says what is scaled of the weights of a GGUF file,
    "sums" of groups or "weights"; it is "" for other weights. ``arrivals`` counts the finished programs of each tile
    (``new_arrivals``). Grid (tiles, parts), or (tiles, 1) without ``alone``. A tile is [block_outputs, block_rows] and
    takes ``step`` inputs at a time; ``group`` is as in ``tile_order``, ``fast`` and ``whole`` as in ``sum_words``,
    ``stages`` as in ``scaled_sums``, ``overlap`` as in ``wait_for_inputs``.
    """
    tile = tl.program_id(0)
    row_tile, output_tile = tile_order(tile, tl.cdiv(rows, block_rows), tl.cdiv(count, block_outputs), group)
    own = row_tile * block_rows + tl.arange(0, block_rows)
    seen = own < rows
    outputs = output_tile * block_outputs + tl.arange(0, block_outputs)
    # Rows of weights beyond the last are computed from the last and not stored.
    lines = weights + tl.minimum(outputs, count - 1).to(tl.int64) * width
    starts = x + own.to(tl.int64) * stride
    target = output + own.to(tl.int64) * count
    group_scales = scales if bits == 4 or grouped != "" else None
    output_scales = scales if bits == 8 and grouped == "" else None
    wait_for_inputs(overlap)
    by_row = None if row_scales is None else tl.load(row_scales + own, mask=seen, other=0.0)
    place = tl.program_id(1)
    start = place * length
    end = tl.minimum(start + length, width)
    total = _part(
        starts, seen, lines, group_scales, minimums, outputs, count, inputs, width, start, end,
        bits, fast, whole, step, grouped, stages,
    )  # fmt: skip
    if not alone:
        for part in range(1, parts):
            start = part * length
            end = tl.minimum(start + length, width)
            total += _part(
                starts, seen, lines, group_scales, minimums, outputs, count, inputs, width, start, end,
                bits, fast, whole, step, grouped, stages,
            )  # fmt: skip
    if parts == 1 or not alone:
        store_tile(total, target, output_scales, by_row, bias, outputs, count, seen)
    else:
        within = tl.arange(0, block_rows)[None, :] * block_outputs + tl.arange(0, block_outputs)[:, None]
        slots = partial + tile * (parts * block_rows * block_outputs) + within
        tl.store(slots + place * (block_rows * block_outputs), total, mask=seen[None, :])
        tl.debug_barrier()  # all threads' parts are written before one thread tells of them
        if tl.atomic_add(arrivals + tile, 1, sem="acq_rel", scope="gpu") == parts - 1:
            total = tl.load(slots, mask=seen[None, :], other=0, cache_modifier=".cg")
            for part in range(1, parts):
                total += tl.load(
                    slots + part * (block_rows * block_outputs), mask=seen[None, :], other=0, cache_modifier=".cg"
                )
            store_tile(total, target, output_scales, by_row, bias, outputs, count, seen)
            tl.store(arrivals + tile, 0)  # ready for the next product


def new_arrivals(device: torch.device) -> Tensor:
    """Returns the counters by which the programs of a tile find out which of them finishes last. They are zero before
    and after each product, and must be used on one CUDA stream at a time."""
    return torch.zeros(ARRIVALS, dtype=torch.int32, device=device)


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None, arrivals: Tensor, *, tile: Tiling | None = None) -> Tensor:
    """Returns ``x`` [rows, inputs] times ``weight`` [outputs, inputs] transposed, plus ``bias`` [outputs], in their
    dtype. Sums are in float32, in an order that depends on the shape of ``weight`` alone. float32 matrices do not use
    tensor cores, which would round them."""
    kind: Kind = "float32" if x.dtype == torch.float32 else "bfloat16"
    chosen = tile or tiling(kind, x.shape[0], x.device, fixed=True)
    count, width = weight.shape
    if tile is None and fixed_length(count, width, chosen) >= width and can_stream(x, weight):
        return streamed_matmul(x, weight, bias)
    return launch(x, weight, None, None, bias, weight.shape[1], x.dtype, arrivals, chosen, fixed=True)


def launch(
    x: Tensor,
    weights: Tensor,
    scales: Tensor | None,
    row_scales: Tensor | None,
    bias: Tensor | None,
    inputs: int,
    dtype: torch.dtype,
    arrivals: Tensor,
    tile: Tiling,
    *,
    bits: int = 8,
    minimums: Tensor | None = None,
    grouped: Literal["", "sums", "weights"] = "",
    fixed: bool,
) -> Tensor:
    """Runs ``product_kernel`` and returns its output, [rows, outputs] in ``dtype``. ``weights`` [outputs, columns] may
    be of any kind; ``x`` [rows, inputs] has contiguous rows. The grid depends on these shapes. ``arrivals`` comes from
    ``new_arrivals``. ``bits`` is the size of a packed number. ``minimums`` and ``grouped`` are as in
    ``product_kernel``. ``fixed``: the order of summation depends on the shape of ``weights`` alone."""
    rows, (count, width) = x.shape[0], weights.shape
    output = torch.empty(rows, count, dtype=dtype, device=x.device)
    if not rows:
        return output
    packed = weights.dtype == torch.int16
    output_tiles, steps = triton.cdiv(count, tile.outputs), triton.cdiv(width, tile.inputs)
    tiles = triton.cdiv(rows, tile.rows) * output_tiles
    length = (
        fixed_length(count, width, tile) if fixed else triton.cdiv(steps, parts_of(tiles, steps, tile)) * tile.inputs
    )
    parts = triton.cdiv(width, length)
    alone = parts == 1 or tiles <= tile.programs
    kept = parts * tiles * tile.rows * tile.outputs if alone and parts > 1 else 0
    exact = x.dtype == torch.int8
    overlap, launched = options(x.device)
    partial = torch.empty(kept, dtype=torch.int32 if exact else torch.float32, device=x.device) if kept else None
    product_kernel[(tiles, parts if alone else 1)](
        x,
        weights,
        scales,
        minimums,
        row_scales,
        bias,
        output,
        partial,
        arrivals,
        rows,
        count,
        inputs,
        width,
        x.stride(0),
        length,
        bits=bits,
        fast=packed and x.is_cuda and dtype == torch.bfloat16,
        whole=width % tile.inputs == 0 and inputs == width * (WORD // bits if packed else 1),
        parts=parts,
        alone=alone,
        block_rows=tile.rows,
        block_outputs=tile.outputs,
        step=tile.inputs,
        group=tile.group,
        grouped=grouped,
        stages=tile.stages if grouped else 0,
        overlap=overlap,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **launched,
    )
    return output


def parts_of(tiles: int, steps: int, tile: Tiling) -> int:
    """Returns the number of parts into which the ``steps`` over the inputs are split: no more than fill the device,
    with at least two steps each. ``tiles`` is the number of tiles of the output."""
    return max(1, min(tile.programs // tiles, steps // 2))


def fixed_length(count: int, width: int, tile: Tiling) -> int:
    """Returns the number of columns of each part of the inputs for products with one order of summation. It depends
    only on the shape of the weights [count, width] and on ``tile.programs``, which all tilings of a table share."""
    parts = max(1, tile.programs // triton.cdiv(count, FIXED_OUTPUTS))
    steps: int = triton.cdiv(triton.cdiv(width, parts), FIXED_STEP)
    return steps * FIXED_STEP


def product_variant(name: str, tile: Tiling, form: WeightFormat | None, dtype: str = "bf16") -> Variant:
    """Returns the variant of ``product_kernel`` that is launched for sizes that are multiples of all tiles, with split
    inputs where the tiling allows it."""
    split = tile.programs > 1
    element = dtype if form is None else "i16" if not form.rounds_inputs else "fp8e4nv" if form is FP8 else "i8"
    rounded = form is not None and form.rounds_inputs
    types = {"x": f"*{element if rounded else dtype}", "weights": f"*{element}", "output": f"*{dtype}"}
    types |= {"scales": "*bf16" if form is not None and form.group else "*fp32", "row_scales": "*fp32"}
    types |= {"partial": "*i32" if element == "i8" else "*fp32", "arrivals": "*i32"}
    sizes = ("rows", "count", "inputs", "width", "stride", "length")
    absent = {"bias", "minimums"} | (set() if rounded else {"row_scales"}) | (set() if form else {"scales"})
    constants: dict[str, object] = dict.fromkeys(absent)
    constants |= {"bits": 8 if form is None else form.bits, "fast": element == "i16" and dtype == "bf16", "whole": True}
    constants |= {"parts": 4 if split else 1, "alone": True, "group": tile.group, "step": tile.inputs}
    constants |= {"block_rows": tile.rows, "block_outputs": tile.outputs, "overlap": True}
    constants |= {"grouped": "", "stages": 0}
    if not split:
        constants |= {"partial": None}
    title = f"{name} {tile.rows}x{tile.outputs}x{tile.inputs}"
    types |= dict.fromkeys(sizes, "i32")
    aligned = frozenset(sizes) - {"rows"}
    return Variant(title, product_kernel, types, constants, aligned, tile.warps, tile.stages)


def variants() -> Iterator[Variant]:
    """Yields the variants to compile ahead: bfloat16 and float32, with parts computed by separate programs and by
    one."""
    kinds: tuple[tuple[Kind, str], ...] = (("bfloat16", "bf16"), ("float32", "fp32"))
    for kind, dtype in kinds:
        for _, tile in DEFAULT[kind]:
            alone = product_variant(f"matmul {kind}", tile, None, dtype)
            yield alone
            yield replace(alone, name=f"{alone.name} in turn", constants={**alone.constants, "alone": False})
