"""Weights packed in groups of 32, as those of GGUF files: random ones, and products with them against their
definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from engine.kernels.triton.embedding import look_up
from engine.kernels.triton.grouped import grouped_matmul
from engine.kernels.triton.matmul import new_arrivals
from engine.model.weights import LayerWeights, MLPWeights, ModelWeights, plain
from engine.quant.format import GROUP
from engine.quant.grouped import GroupedMatrix
from engine.quant.packed_groups import PackedGroups, packed_groups
from load_tests.gpu import correctness
from load_tests.gpu.figure import Bench, Figure
from load_tests.gpu.products import matrices_of
from load_tests.gpu.shapes import LLAMA_8B, spec_named


@dataclass(frozen=True, slots=True)
class Type:
    """What a GGUF type comes to in memory: the bits of a number, the largest number, and whether all minimums are zero
    once the numbers are around zero."""

    bits: Literal[4, 8]
    largest: int
    symmetric: bool


TYPES: Mapping[str, Type] = {
    "Q4_0": Type(4, 15, symmetric=True),
    "Q4_1": Type(4, 15, symmetric=False),  # Q4_K is the same in memory
    "Q5_1": Type(8, 31, symmetric=False),
    "Q8_0": Type(8, 255, symmetric=True),
}


def packed_as(name: str, weight: Tensor) -> PackedGroups:
    """Returns ``weight`` [outputs, inputs] rounded to the nearest as the type ``name`` has it, packed where it is."""
    kind, groups = TYPES[name], weight.float().unflatten(-1, (-1, GROUP))
    if kind.symmetric:
        middle = (kind.largest + 1) // 2
        scales = (groups.abs().amax(-1) / (middle - 1)).half()
        minimums = (-middle * scales.float()).half()
    else:
        minimums = groups.amin(-1).half()
        scales = ((groups.amax(-1) - minimums.float()) / kind.largest).half()
    numbers = (groups - minimums.float().unsqueeze(-1)) / scales.float().unsqueeze(-1)
    codes = numbers.nan_to_num_(nan=0.0).round_().clamp_(0, kind.largest).byte().flatten(1)
    return packed_groups(GroupedMatrix(kind.bits, codes, scales, minimums), weight.device)


def packed_weights(name: str, weights: ModelWeights) -> ModelWeights:
    """Returns a dense model with all matrices of the type ``name``."""

    def layer(whole: LayerWeights) -> LayerWeights:
        assert isinstance(whole.mlp, MLPWeights)
        gate_up, down = packed_as(name, plain(whole.mlp.gate_up)), packed_as(name, plain(whole.mlp.down))
        mlp = replace(whole.mlp, gate_up=gate_up, down=down)
        qkv, output = packed_as(name, plain(whole.qkv)), packed_as(name, plain(whole.output))
        return replace(whole, qkv=qkv, output=output, mlp=mlp)

    return replace(weights, layers=tuple(map(layer, weights.layers)), head=packed_as(name, plain(weights.head)))


def check(bench: Bench, dtype: torch.dtype) -> list[Figure]:
    """Products for few rows and many, and rows that are looked up."""
    arrivals = new_arrivals(bench.device)
    figures = []
    for name, (outputs, inputs) in matrices_of(spec_named(LLAMA_8B, bench)).items():
        if name in ("qkv", "output"):  # the same kernels in other sizes
            continue
        weight = torch.randn(outputs, inputs, device=bench.device).mul_(inputs**-0.5)
        for kind in TYPES:
            matrix = packed_as(kind, weight)
            whole = matrix.dequantised(torch.float32).double()
            for rows, fixed in (
                ((3, False), (3, True)) if bench.dry else ((1, False), (37, False), (37, True), (300, False))
            ):
                x = torch.randn(rows, inputs, device=bench.device).to(dtype)
                found = grouped_matmul(x, matrix, None, arrivals, fixed=fixed)
                label = f"{name}, {rows} rows, {kind}" + (", fixed" if fixed else "")
                figures.append(correctness.compared(label, found, x.double() @ whole.t()))
            tokens = torch.randint(outputs, (5,), device=bench.device)
            figures.append(
                correctness.compared(f"{name}, looked up, {kind}", look_up(tokens, matrix, dtype), whole[tokens])
            )
    return figures
