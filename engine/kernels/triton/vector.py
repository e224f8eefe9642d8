"""Matrix-vector product (GEMV) for batch size 1.

Tensor cores need at least 8 rows and shared memory, so a plain kernel is faster. Its summation order differs from
``matmul``'s, so do not use it where results must be batch-invariant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.triton.dependent_launch import options, wait_for_inputs
from engine.kernels.triton.variants import Variant


@dataclass(frozen=True, slots=True)
class VectorShape:
    """The shape of the kernel: outputs per program, inputs per step, warps per program."""

    outputs: int
    inputs: int
    warps: int


USUAL = VectorShape(4, 1024, 4)


@triton.jit
def _weights(lines: tl.tensor, at: tl.tensor, inputs: tl.tensor) -> tl.tensor:
    """Loads columns ``at`` [step] of ``lines`` [outputs]; out-of-range columns are 0."""
    return tl.load(lines[:, None] + at[None, :], mask=(at < inputs)[None, :], other=0.0, eviction_policy="evict_first")


@triton.jit
def vector_kernel(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    output: tl.tensor,
    count: tl.tensor,
    inputs: tl.tensor,
    whole: tl.constexpr,
    block: tl.constexpr,
    step: tl.constexpr,
    overlap: tl.constexpr,
) -> None:
    """Computes ``block`` outputs of ``weight`` [count, inputs] times ``x`` [inputs]. Grid (count / block). It
    prefetches the next step's weights; the first load starts before ``x`` is ready. ``bias`` is [count]. ``whole``:
    ``inputs`` is a multiple of ``step``. ``overlap`` is as in ``wait_for_inputs``."""
    outputs = tl.program_id(0) * block + tl.arange(0, block)
    lines = weight + tl.minimum(outputs, count - 1).to(tl.int64) * inputs
    columns = tl.arange(0, step)
    row = x + tl.zeros((block,), tl.int32)  # broadcast to the weights' layout: no thread exchanges data
    ahead = _weights(lines, columns, inputs)
    wait_for_inputs(overlap)
    total = tl.zeros((block, step), tl.float32)
    for first in range(0, inputs, step):
        here = ahead
        at = first + columns
        ahead = _weights(lines, at + step, inputs)
        if whole:
            vector = tl.load(row[:, None] + at[None, :])
        else:
            vector = tl.load(row[:, None] + at[None, :], mask=(at < inputs)[None, :], other=0.0)
        total += here.to(tl.float32) * vector.to(tl.float32)
    result = tl.sum(total, 1)
    kept = outputs < count
    if bias is not None:
        result += tl.load(bias + outputs, mask=kept, other=0.0).to(tl.float32)
    tl.store(output + outputs, result.to(output.dtype.element_ty), mask=kept)


def vector_matmul(x: Tensor, weight: Tensor, bias: Tensor | None, *, shape: VectorShape = USUAL) -> Tensor:
    """Returns ``x`` [1, inputs] times ``weight`` [outputs, inputs] transposed, plus ``bias`` [outputs], in their dtype,
    summed in float32."""
    count, inputs = weight.shape
    output = torch.empty(1, count, dtype=x.dtype, device=x.device)
    overlap, launched = options(x.device)
    vector_kernel[(triton.cdiv(count, shape.outputs),)](
        x,
        weight,
        bias,
        output,
        count,
        inputs,
        whole=inputs % shape.inputs == 0,
        block=shape.outputs,
        step=shape.inputs,
        overlap=overlap,
        num_warps=shape.warps,
        **launched,
    )
    return output


def variants() -> Iterator[Variant]:
    """Yields one variant for inputs divisible by the step and one for others."""
    sizes = ("count", "inputs")
    types = {"x": "*bf16", "weight": "*bf16", "output": "*bf16"} | dict.fromkeys(sizes, "i32")
    for whole in (True, False):
        constants: dict[str, object] = {"bias": None, "whole": whole, "overlap": True}
        constants |= {"block": USUAL.outputs, "step": USUAL.inputs}
        name = f"vector {'whole' if whole else 'cut'}"
        yield Variant(name, vector_kernel, types, constants, frozenset(sizes), USUAL.warps)
