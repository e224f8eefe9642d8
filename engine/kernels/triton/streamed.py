"""Deterministic matmul with tiles loaded by TMA (the tensor memory accelerator of NVIDIA's Hopper).

One thread issues the load; the others only compute. The summation order equals ``matmul``'s, so results are bitwise
equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from engine.kernels.triton.dependent_launch import options, wait_for_inputs
from engine.kernels.triton.products import store_tile, tile_order
from engine.kernels.triton.tiling import Tiling, streamed_tiling
from engine.kernels.triton.variants import Variant

_ALIGNMENT = 16  # bytes: of the tensor and of each of its rows


@triton.jit
def streamed_kernel(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    output: tl.tensor,
    rows: tl.tensor,
    count: tl.tensor,
    width: tl.tensor,
    block_rows: tl.constexpr,
    block_outputs: tl.constexpr,
    step: tl.constexpr,
    group: tl.constexpr,
    overlap: tl.constexpr,
) -> None:
    """Computes one tile of ``output`` [rows, count]. ``x`` [rows, width] and ``weight`` [count, width] are descriptors
    of tiles [block_rows, step] and [block_outputs, step]; elements beyond the ends are read as zeros. ``bias`` is
    [count]. ``group`` is as in ``tile_order``, ``overlap`` as in ``wait_for_inputs``."""
    row_tiles, output_tiles = tl.cdiv(rows, block_rows), tl.cdiv(count, block_outputs)
    row_tile, output_tile = tile_order(tl.program_id(0), row_tiles, output_tiles, group)
    first_row = row_tile * block_rows
    first_output = output_tile * block_outputs
    wait_for_inputs(overlap)
    total = tl.zeros((block_outputs, block_rows), tl.float32)
    for first in range(0, width, step):
        total = tl.dot(weight.load([first_output, first]), x.load([first_row, first]).T, total, input_precision="ieee")
    own = first_row + tl.arange(0, block_rows)
    outputs = first_output + tl.arange(0, block_outputs)
    store_tile(total, output + own.to(tl.int64) * count, None, None, bias, outputs, count, own < rows)


def can_stream(x: Tensor, weight: Tensor) -> bool:
    """Returns whether TMA can load both: 16-bit elements, 16-byte aligned rows, at least one row of ``x``, compute
    capability 9.0 or newer."""
    aligned = all(
        each.stride(0) * each.element_size() % _ALIGNMENT == 0 and each.data_ptr() % _ALIGNMENT == 0
        for each in (x, weight)
    )
    return aligned and x.element_size() == 2 and x.shape[0] > 0 and options(x.device)[0]


def streamed_matmul(x: Tensor, weight: Tensor, bias: Tensor | None, *, tile: Tiling | None = None) -> Tensor:
    """Returns the same as ``matmul``, computed without split-K. Inputs must satisfy ``can_stream``."""
    rows, (count, width) = x.shape[0], weight.shape
    chosen = tile or streamed_tiling(rows, count, _multiprocessors(x.device))
    output = torch.empty(rows, count, dtype=x.dtype, device=x.device)
    overlap, launched = options(x.device)
    streamed_kernel[(triton.cdiv(rows, chosen.rows) * triton.cdiv(count, chosen.outputs),)](
        TensorDescriptor.from_tensor(x, [chosen.rows, chosen.inputs]),
        TensorDescriptor.from_tensor(weight, [chosen.outputs, chosen.inputs]),
        bias,
        output,
        rows,
        count,
        width,
        block_rows=chosen.rows,
        block_outputs=chosen.outputs,
        step=chosen.inputs,
        group=chosen.group,
        overlap=overlap,
        num_warps=chosen.warps,
        num_stages=chosen.stages,
        **launched,
    )
    return output


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def variants() -> Iterator[Variant]:
    """Yields the variants to compile ahead for an H100."""
    for rows in (1, 64, 256, 4096):
        for count in (4096, 6144, 28_672):
            tile = streamed_tiling(rows, count, 132)
            types = {
                "x": f"tensordesc<bf16[{tile.rows}, {tile.inputs}]>",
                "weight": f"tensordesc<bf16[{tile.outputs}, {tile.inputs}]>",
                "output": "*bf16",
            }
            sizes = {"block_rows": tile.rows, "block_outputs": tile.outputs, "step": tile.inputs, "group": tile.group}
            yield Variant(
                f"streamed {tile.rows}x{tile.outputs}x{tile.inputs}, {rows} x {count}",
                streamed_kernel,
                types | dict.fromkeys(("rows", "count", "width"), "i32"),
                {"bias": None, "overlap": True, **sizes},
                frozenset(("count", "width")),
                tile.warps,
                tile.stages,
            )
