"""The product of one row: the matrix is read once, and every thread multiplies what it reads.

Tensor cores multiply 8 rows at least and want their operands by way of shared memory; one row is sooner done without
them. Its order of summation is its own, so that it does not serve where a row's bits may not depend on the batch.
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
    """Outputs of a program, inputs that it reads at a time, and its warps."""

    outputs: int
    inputs: int
    warps: int


USUAL = VectorShape(4, 1024, 4)


@triton.jit
def _weights(lines: tl.tensor, at: tl.tensor, inputs: tl.tensor) -> tl.tensor:
    """[outputs, step] of the columns ``at``; zeros beyond the last."""
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
    """Grid (count / block): ``block`` outputs of ``weight`` [count, inputs] times ``x`` [inputs]. The weights of the
    next step are on their way while those of this one are multiplied, the first before ``x`` is there."""
    outputs = tl.program_id(0) * block + tl.arange(0, block)
    lines = weight + tl.minimum(outputs, count - 1).to(tl.int64) * inputs
    columns = tl.arange(0, step)
    row = x + tl.zeros((block,), tl.int32)  # as wide as the weights, so that no thread needs another one's numbers
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
    """``x`` [1, inputs] times ``weight`` [outputs, inputs] transposed, plus ``bias`` [outputs], in their dtype; summed
    in float32."""
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
    """Inputs that are a multiple of a step, and others."""
    sizes = ("count", "inputs")
    types = {"x": "*bf16", "weight": "*bf16", "output": "*bf16"} | dict.fromkeys(sizes, "i32")
    for whole in (True, False):
        constants: dict[str, object] = {"bias": None, "whole": whole, "overlap": True}
        constants |= {"block": USUAL.outputs, "step": USUAL.inputs}
        name = f"vector {'whole' if whole else 'cut'}"
        yield Variant(name, vector_kernel, types, constants, frozenset(sizes), USUAL.warps)
