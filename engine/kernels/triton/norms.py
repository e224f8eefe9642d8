"""Root mean square norms: one program per row, which reads the row once if it fits in registers."""

# ruff: noqa: N803 (what is known when a kernel is compiled stands in capitals)
from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.triton.dependent_launch import options, wait_for_inputs
from engine.kernels.triton.variants import Variant

_WIDEST = 16_384
"""Elements that a program holds in registers: 32 in each of 512 threads."""


@triton.jit
def scaled(wide: tl.tensor, scale: tl.tensor, weight: tl.tensor) -> tl.tensor:
    """Returns ``wide`` * ``scale`` * ``weight``, computed in float32 and rounded to the weight's dtype before and after
    the second product, as in ``ReferenceKernels.rms_norm``."""
    return ((wide * scale).to(weight.dtype).to(tl.float32) * weight.to(tl.float32)).to(weight.dtype)


@triton.jit
def _read(stream: tl.tensor, update: tl.tensor, columns: tl.tensor, mask: tl.tensor, ADD: tl.constexpr) -> tl.tensor:
    """A part of a row in float32; of the sum of two, which is stored to ``stream`` and comes back as rounded."""
    x = tl.load(stream + columns, mask, other=0.0)
    if ADD:
        x = (x.to(tl.float32) + tl.load(update + columns, mask, other=0.0).to(tl.float32)).to(x.dtype)
        tl.store(stream + columns, x, mask)
    return x.to(tl.float32)


@triton.jit
def norm_kernel(
    stream: tl.tensor, update: tl.tensor, weight: tl.tensor, out: tl.tensor,
    stream_stride: tl.tensor, update_stride: tl.tensor, size: tl.tensor, eps: tl.tensor,
    ADD: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr, OVERLAP: tl.constexpr,
) -> None:  # fmt: skip
    """Computes the norm of one row; if ADD is set, adds ``update`` to ``stream`` first. Grid (rows). ``out`` [rows,
    size] is contiguous. WHOLE: a block holds a whole row. ``weight`` is [size], ``eps`` is added to the mean square.
    OVERLAP is as in ``wait_for_inputs``."""
    row = tl.program_id(0).to(tl.int64)
    stream += row * stream_stride
    update += row * update_stride
    out += row * size
    columns = tl.arange(0, BLOCK)
    if WHOLE:
        mask = columns < size
        factor = tl.load(weight + columns, mask, other=0.0)  # on its way while the row is summed up
        wait_for_inputs(OVERLAP)
        wide = _read(stream, update, columns, mask, ADD)
        scale = tl.rsqrt(tl.sum(wide * wide, 0) / size + eps)
        tl.store(out + columns, scaled(wide, scale, factor).to(out.dtype.element_ty), mask)
    else:
        wait_for_inputs(OVERLAP)
        squares = tl.zeros([BLOCK], tl.float32)
        for start in range(0, size, BLOCK):
            wide = _read(stream, update, start + columns, start + columns < size, ADD)
            squares += wide * wide
        scale = tl.rsqrt(tl.sum(squares, 0) / size + eps)
        tl.debug_barrier()  # what is read again was written by other threads
        for start in range(0, size, BLOCK):
            mask = start + columns < size
            wide = tl.load(stream + start + columns, mask, other=0.0).to(tl.float32)
            factor = tl.load(weight + start + columns, mask, other=0.0)
            tl.store(out + start + columns, scaled(wide, scale, factor).to(out.dtype.element_ty), mask)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Returns ``Kernels.rms_norm`` of ``x`` [..., size], whose rows may have any stride. ``weight`` [size] is float32
    or of the dtype of ``x``."""
    rows = x.reshape(-1, x.shape[-1])
    return _launch(rows, rows, weight, eps, add=False).view(x.shape)


def add_rms_norm(stream: Tensor, update: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Does the work of ``Kernels.add_rms_norm``. ``stream`` and ``update`` [tokens, size] may have rows of any
    stride."""
    return _launch(stream, update, weight, eps, add=True)


def _launch(stream: Tensor, update: Tensor, weight: Tensor, eps: float, add: bool) -> Tensor:
    rows, size = stream.shape
    out = torch.empty((rows, size), dtype=stream.dtype, device=stream.device)
    block, warps = _shape(size)
    overlap, launched = options(stream.device)
    if rows:
        norm_kernel[(rows,)](
            stream, update, weight, out, stream.stride(0), update.stride(0), size, eps,
            ADD=add, BLOCK=block, WHOLE=size <= block, OVERLAP=overlap, num_warps=warps, **launched,
        )  # fmt: skip
    return out


def _shape(size: int) -> tuple[int, int]:
    """Elements that a program takes at a time, and its warps: 16 bytes for a thread to load at once, or twice that.
    A function of the row alone, so that its sum is the same in any batch."""
    block = min(triton.next_power_of_2(size), _WIDEST)
    return block, max(1, min(16, block // 512))


def variants() -> Iterator[Variant]:
    """Yields the variants to compile ahead: hidden sizes of Qwen3-0.6B, Qwen3-8B and Llama-3.1-8B, Llama-3.1-70B; a
    float32 weight as Gemma's; the widest."""
    sizes = {
        "1024": "*bf16",
        "4096": "*bf16",
        "8192": "*bf16",
        "3840 wide": "*fp32",
        "16384": "*bf16",
        "20480": "*bf16",
    }
    for name, weight in sizes.items():
        size = int(name.split()[0])
        block, warps = _shape(size)
        for add in (False, True):
            yield Variant(
                f"{'add_' if add else ''}rms_norm {name}",
                norm_kernel,
                {"stream": "*bf16", "update": "*bf16", "weight": weight, "out": "*bf16", "stream_stride": "i32"}
                | {"update_stride": "i32", "size": "i32", "eps": "fp32"},
                {"ADD": add, "BLOCK": block, "WHOLE": size <= block, "OVERLAP": True},
                aligned=frozenset(("stream_stride", "update_stride", "size")),
                warps=warps,
            )
