"""Products with the weights of GGUF files, which stay packed in groups of 32 with a scale and a minimum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from engine.kernels.triton.matmul import launch, product_variant
from engine.kernels.triton.tiling import DEFAULT, Kind, Tiling, tiling
from engine.kernels.triton.tuning import shared_memory_of
from engine.kernels.triton.variants import Variant
from engine.quant.format import INT4, INT8
from engine.quant.packed_groups import PAIR, PackedGroups

KINDS: Mapping[Literal[4, 8], Kind] = {4: "grouped4", 8: "grouped8"}
FEW_ROWS = 16
"""Rows of the largest tile in which sums are scaled: in a larger one there are more sums than weights to scale."""
SHARED_WANTED = 229_888
"""Bytes of shared memory that the largest usual tile takes. H100 and H200 have them."""
SMALL_FEW, SMALL_MANY = Tiling(16, 64, 64, 4, 3, programs=264), Tiling(64, 64, 64, 4, 2)
"""For up to ``FEW_ROWS`` rows and for more on other cards. They fit where a program has 99 KiB."""


def grouped_matmul(
    x: Tensor,
    weight: PackedGroups,
    bias: Tensor | None,
    arrivals: Tensor,
    *,
    fixed: bool = False,
    tile: Tiling | None = None,
) -> Tensor:
    """Returns ``x`` [rows, inputs] times ``weight`` [outputs, inputs] transposed, plus ``bias`` [outputs], in the dtype
    of ``x``.

    Without minimums, tiles of up to 16 rows multiply the numbers of the weights and scale sums in float32. All others
    round weights to the dtype of ``x``, and scales and minimums too if that is bfloat16. ``arrivals`` and ``fixed`` are
    as in ``launch``.
    """
    chosen = replace(tile or usual(x, weight.bits, fixed, shared_memory_of(x.device)), inputs=PAIR)
    scales_sums = _scales_sums(chosen, weight.minimums is not None)
    return launch(
        x,
        weight.numbers,
        weight.scales.view(torch.int32) if scales_sums else weight.scales,
        None,
        bias,
        weight.inputs,
        x.dtype,
        arrivals,
        chosen,
        bits=weight.bits,
        minimums=weight.minimums,
        grouped="sums" if scales_sums else "weights",
        fixed=fixed,
    )


def _scales_sums(tile: Tiling, minimums: bool) -> bool:
    return tile.rows <= FEW_ROWS and not minimums


def usual(x: Tensor, bits: Literal[4, 8], fixed: bool, shared: int | None) -> Tiling:
    """Returns the tile for a product of ``x``. ``shared`` is the shared memory of the card, in bytes, and None where
    there is no such limit. ``fixed``: the tile is the same for any number of rows."""
    if x.dtype == torch.float32:  # not for the tensor cores; what a larger tile would hold does not fit into registers
        return replace(tiling("float32", x.shape[0], x.device, fixed), rows=FEW_ROWS)
    if shared is not None and shared < SHARED_WANTED:
        return SMALL_FEW if x.shape[0] <= FEW_ROWS and not fixed else SMALL_MANY
    return tiling(KINDS[bits], x.shape[0], x.device, fixed)


def variants() -> Iterator[Variant]:
    """Yields the variants to compile ahead: both sizes of a number in bfloat16, with and without minimums, for few,
    some and many rows, and the same for small cards."""
    for bits, kind in KINDS.items():
        for minimums in (False, True):
            for _, tile in DEFAULT[kind]:
                yield _variant(f"grouped {bits} bits", bits, replace(tile, inputs=PAIR), minimums)
            for tile in (SMALL_FEW, SMALL_MANY):
                small = _variant(f"grouped {bits} bits, small card", bits, tile, minimums)
                yield replace(small, constants={**small.constants, "overlap": False})  # which they cannot


def _variant(title: str, bits: Literal[4, 8], tile: Tiling, minimums: bool) -> Variant:
    scales_sums = _scales_sums(tile, minimums)
    name = f"{title}{' with minimums' if minimums else ''}"
    plain = product_variant(name, tile, INT4 if bits == 4 else INT8)
    constants = {**plain.constants, "grouped": "sums" if scales_sums else "weights", "stages": tile.stages}
    if minimums:
        del constants["minimums"]
    return replace(
        plain,
        signature={**plain.signature, "scales": "*i32" if scales_sums else "*fp16", "minimums": "*fp16"},
        constants=constants,
    )
