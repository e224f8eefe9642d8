"""The activation between the projections of a gated MLP (Shazeer 2020)."""

# ruff: noqa: N803 (what is known when a kernel is compiled stands in capitals)
from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.triton.dependent_launch import options, wait_for_inputs
from engine.kernels.triton.variants import Variant
from engine.model.spec import Activation

_BLOCK = 1024
_WARPS = 4  # so that a thread loads 16 bytes of each half at once


@triton.jit
def _activated(x: tl.tensor, KIND: tl.constexpr) -> tl.tensor:
    """In float32. Hendrycks and Gimpel 2016; the tanh of their second form is a logistic function of twice as much:
    (1 + tanh(y)) / 2 = 1 / (1 + exp(-2 y))."""
    if KIND == "silu":
        active = x / (1.0 + tl.exp(-x))
    elif KIND == "gelu":
        active = x * 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
    else:
        tl.static_assert(KIND == "gelu_tanh")
        inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        active = x / (1.0 + tl.exp(-2.0 * inner))
    return active


@triton.jit
def gated_kernel(
    gate_up: tl.tensor, out: tl.tensor, stride: tl.tensor, size: tl.tensor, KIND: tl.constexpr, BLOCK: tl.constexpr,
    OVERLAP: tl.constexpr,
) -> None:  # fmt: skip
    """Writes activation(gate) * up to ``out`` [rows, size], which is contiguous. Rows of ``gate_up`` [rows, 2 * size]
    are ``stride`` elements apart. Grid (rows, size / BLOCK). KIND is the activation, OVERLAP as in
    ``wait_for_inputs``."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < size
    source = gate_up + row * stride + columns
    wait_for_inputs(OVERLAP)
    gate = tl.load(source, mask, other=0.0)
    up = tl.load(source + size, mask, other=0.0)
    # Rounded before the product, as two operations would.
    active = _activated(gate.to(tl.float32), KIND).to(gate.dtype)
    tl.store(out + row * size + columns, (active.to(tl.float32) * up.to(tl.float32)).to(up.dtype), mask)


def gated(gate_up: Tensor, activation: Activation) -> Tensor:
    """Returns the result of ``Kernels.gated``, [tokens, n], for ``gate_up`` [tokens, 2 * n], whose rows may have any
    stride."""
    rows, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((rows, size), dtype=gate_up.dtype, device=gate_up.device)
    if rows:
        grid = (rows, triton.cdiv(size, _BLOCK))
        overlap, launched = options(gate_up.device)
        gated_kernel[grid](
            gate_up, out, gate_up.stride(0), size, KIND=activation, BLOCK=_BLOCK, OVERLAP=overlap, num_warps=_WARPS,
            **launched,
        )  # fmt: skip
    return out


def variants() -> Iterator[Variant]:
    """Yields the variants to compile ahead; one shape serves all sizes."""
    kinds: tuple[Activation, ...] = ("silu", "gelu", "gelu_tanh")
    for kind in kinds:
        yield Variant(
            f"gated {kind}",
            gated_kernel,
            {"gate_up": "*bf16", "out": "*bf16", "stride": "i32", "size": "i32"},
            {"KIND": kind, "BLOCK": _BLOCK, "OVERLAP": True},
            aligned=frozenset(("stride", "size")),
            warps=_WARPS,
        )
