"""Products with quantised weights: either weights are unpacked as they are read, or inputs are quantised at run time
and one-byte numbers are multiplied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.triton.dependent_launch import options, wait_for_inputs
from engine.kernels.triton.formats import to_e4m3, to_int8
from engine.kernels.triton.matmul import launch, product_variant
from engine.kernels.triton.tiling import DEFAULT, Kind, Tiling, tiling
from engine.kernels.triton.variants import Variant
from engine.quant.format import FP8, GROUP, INT4, INT8, W8A8, WeightFormat
from engine.quant.matrix import PackedMatrix

MAX_INPUTS = (2**31 - 1) // 127**2
"""The sum of so many products of int8 always fits into int32."""
KINDS: Mapping[WeightFormat, Kind] = {INT8: "int8", INT4: "int4", W8A8: "w8a8", FP8: "fp8"}


@triton.jit
def round_rows_kernel(
    x: tl.tensor,
    numbers: tl.tensor,
    scales: tl.tensor,
    inputs: tl.tensor,
    stride: tl.tensor,
    highest: tl.constexpr,
    size: tl.constexpr,
    overlap: tl.constexpr,
) -> None:
    """Quantises one row so that its largest absolute value becomes ``highest``. ``numbers`` are int8, or bytes of
    float8. ``size`` is a power of two of at least the number of inputs."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, size)
    inside = at < inputs
    wait_for_inputs(overlap)
    wide = tl.load(x + row * stride + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.math.div_rn(tl.max(tl.abs(wide), 0), highest)
    # What is not finite makes the scale no number.
    tl.store(scales + row, scale + tl.sum(wide * 0.0, 0))
    divided = tl.math.div_rn(wide, tl.where(scale > 0, scale, 1.0))
    divided = tl.minimum(tl.maximum(divided, -highest), highest)
    if numbers.dtype.element_ty == tl.int8:
        tl.store(numbers + row * inputs + at, to_int8(divided), mask=inside)
    else:
        tl.store(numbers + row * inputs + at, to_e4m3(divided), mask=inside)


def round_rows(x: Tensor, form: WeightFormat) -> tuple[Tensor, Tensor]:
    """Returns ``x`` [rows, inputs] as numbers of ``form``, and a float32 scale for each row, as ``quantised_rows`` in
    quant/matrix.py."""
    rows, inputs = x.shape
    numbers = torch.empty(rows, inputs, dtype=form.number, device=x.device)
    scales = torch.empty(rows, dtype=torch.float32, device=x.device)
    size = triton.next_power_of_2(inputs)
    stored = numbers if form.number == torch.int8 else numbers.view(torch.uint8)
    overlap, launched = options(x.device)
    if rows:
        round_rows_kernel[(rows,)](
            x, stored, scales, inputs, x.stride(0), highest=float(form.highest), size=size, overlap=overlap,
            num_warps=_warps(size), **launched,
        )  # fmt: skip
    return numbers, scales


def quantised_matmul(
    x: Tensor,
    weight: PackedMatrix,
    bias: Tensor | None,
    arrivals: Tensor,
    *,
    fixed: bool = False,
    tile: Tiling | None = None,
) -> Tensor:
    """Returns ``x`` [rows, inputs] times ``weight`` [outputs, inputs] transposed, plus ``bias`` [outputs], in the dtype
    of ``x``.

    If the format rounds no inputs, weights are converted to the dtype of ``x`` in registers; int4 weights are rounded
    to it after scaling. ``fixed``: the order of summation is the same for any number of rows. Raises ValueError for
    more inputs than an int32 sum can hold.
    """
    form = weight.form
    if form is W8A8 and weight.inputs > MAX_INPUTS:
        raise ValueError(f"weight_dtype w8a8 adds up {MAX_INPUTS} inputs at most, a matrix has {weight.inputs}")
    if form.rounds_inputs:
        numbers, row_scales = round_rows(x, form)
        chosen = tile or tiling(KINDS[form], x.shape[0], x.device, fixed)
        inputs, scales = weight.inputs, weight.scales
        return launch(numbers, weight.numbers, scales, row_scales, bias, inputs, x.dtype, arrivals, chosen, fixed=fixed)
    # float32 is not for the tensor cores; a step must be whole groups all the same.
    chosen = tile or tiling("float32" if x.dtype == torch.float32 else KINDS[form], x.shape[0], x.device, fixed)
    chosen = replace(chosen, inputs=triton.cdiv(chosen.inputs, GROUP) * GROUP)
    return launch(
        x,
        weight.numbers,
        weight.scales,
        None,
        bias,
        weight.inputs,
        x.dtype,
        arrivals,
        chosen,
        bits=form.bits,
        fixed=fixed,
    )


def _warps(size: int) -> int:
    """So that a thread has at most 64 numbers of a row."""
    return min(16, max(1, size // 1024))


def variants() -> Iterator[Variant]:
    """Yields the variants to compile ahead: all formats in bfloat16, for few, some and many rows; and the rounding of
    rows."""
    for form, kind in KINDS.items():
        for _, tile in DEFAULT[kind]:
            yield product_variant(f"quantised {form.name}", tile, form)
    for form, element in ((W8A8, "i8"), (FP8, "u8")):
        for size in (1024, 4096, 16384):
            yield Variant(
                f"round rows {form.name} {size}",
                round_rows_kernel,
                {"x": "*bf16", "numbers": f"*{element}", "scales": "*fp32", "inputs": "i32", "stride": "i32"},
                {"highest": float(form.highest), "size": size, "overlap": True},
                frozenset(("inputs", "stride")),
                _warps(size),
            )
