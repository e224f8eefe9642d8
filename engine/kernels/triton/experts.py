"""A mixture of experts on a GPU: tokens are sorted by expert, and multiplied in one grouped product, without a round
trip to the host.

The number of tiles depends on how tokens are distributed over experts, which only the device knows. The grid has the
maximum number of tiles, and superfluous programs end at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.triton.products import store_tile, sum_plain, tile_order
from engine.kernels.triton.tiling import DEFAULT, Tiling, tiling
from engine.kernels.triton.variants import Variant
from engine.model.experts import route
from engine.model.weights import ExpertWeights

_SUM_BLOCK = 1024  # numbers of a token that one program adds up


@triton.jit
def tiles_kernel(
    bounds: tl.tensor, tiles: tl.tensor, experts: tl.tensor, block_rows: tl.constexpr, size: tl.constexpr
) -> None:
    """Writes the expert, the first row and the end row of one tile; a superfluous tile has no rows. ``size`` is a power
    of two of at least the number of experts. ``bounds`` [experts + 1] has the first row of each expert, and the number
    of rows. ``tiles`` is as in ``Sorted``. Grid (tiles)."""
    tile = tl.program_id(0)
    expert = tl.arange(0, size)
    known = expert < experts
    first = tl.load(bounds + expert, mask=known, other=0).to(tl.int32)
    end = tl.load(bounds + expert + 1, mask=known, other=0).to(tl.int32)
    count = (end - first + block_rows - 1) // block_rows
    last = tl.cumsum(count, 0)
    own = (last - count <= tile) & (tile < last)
    row = tl.sum(tl.where(own, first + (tile - last + count) * block_rows, 0), 0)
    tl.store(tiles + tile * 3, tl.sum(tl.where(own, expert, 0), 0))
    tl.store(tiles + tile * 3 + 1, row)
    tl.store(tiles + tile * 3 + 2, tl.sum(tl.where(own, end, 0), 0))


@triton.jit
def grouped_kernel(
    x: tl.tensor,
    weights: tl.tensor,
    output: tl.tensor,
    tiles: tl.tensor,
    order: tl.tensor,
    tile_count: tl.tensor,
    count: tl.tensor,
    inputs: tl.tensor,
    per_token: tl.constexpr,
    gather: tl.constexpr,
    whole: tl.constexpr,
    block_rows: tl.constexpr,
    block_outputs: tl.constexpr,
    step: tl.constexpr,
    group: tl.constexpr,
) -> None:
    """Computes one tile of the rows of one expert. If ``gather``, rows are read in token order and written sorted by
    expert; if not, they are read sorted and written in token order. ``weights`` is [experts, count, inputs]. ``tiles``
    and ``order`` are as in ``Sorted``, ``tile_count`` is the number of tiles. A tile is [block_outputs, block_rows];
    ``whole`` and ``step`` are as in ``sum_plain``, ``group`` as in ``tile_order``. Grid (tiles of rows * tiles of
    outputs)."""
    place, output_tile = tile_order(tl.program_id(0), tile_count, tl.cdiv(count, block_outputs), group)
    expert = tl.load(tiles + place * 3).to(tl.int64)
    own = tl.load(tiles + place * 3 + 1) + tl.arange(0, block_rows)
    end = tl.load(tiles + place * 3 + 2)
    if tl.load(tiles + place * 3 + 1) < end:
        seen = own < end
        choice = tl.load(order + own, mask=seen, other=0)
        source = choice // per_token if gather else own.to(tl.int64)
        target = own.to(tl.int64) if gather else choice
        outputs = output_tile * block_outputs + tl.arange(0, block_outputs)
        lines = weights + expert * count * inputs + tl.minimum(outputs, count - 1).to(tl.int64) * inputs
        total = sum_plain(x + source * inputs, seen, lines, 0, inputs, whole, step)
        store_tile(total, output + target * count, None, None, None, outputs, count, seen)


@triton.jit
def weighted_kernel(
    outputs: tl.tensor,
    shares: tl.tensor,
    result: tl.tensor,
    hidden: tl.tensor,
    per_token: tl.constexpr,
    size: tl.constexpr,
) -> None:
    """Adds up a part of the outputs of one token's experts, each times its weight, the likeliest expert's first.
    ``outputs`` is [tokens * per_token, hidden], ``shares`` [tokens, per_token] are the weights, ``result`` is [tokens,
    hidden]. Grid (tokens, hidden / size)."""
    token = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * size + tl.arange(0, size)
    inside = at < hidden
    total = tl.zeros((size,), tl.float32)
    for place in tl.static_range(per_token):
        row = token * per_token + place
        own = tl.load(outputs + row * hidden + at, mask=inside, other=0.0).to(tl.float32)
        total += own * tl.load(shares + row).to(tl.float32)
    tl.store(result + token * hidden + at, total.to(result.dtype.element_ty), mask=inside)


@dataclass(frozen=True, slots=True)
class Sorted:
    """The (token, expert) choices of all tokens, sorted by expert."""

    order: Tensor  # [tokens * per_token] int64: token * per_token + place among its choices
    tiles: Tensor  # [tiles, 3] int32: expert, first row and end of its rows, counted in ``order``


def sort_choices(chosen: Tensor, experts: int, block_rows: int) -> Sorted:
    """Sorts ``chosen`` [tokens, per_token], the experts of each token, by expert, and cuts the rows of each expert into
    tiles of ``block_rows``."""
    rows = chosen.numel()
    ordered, order = chosen.flatten().sort(stable=True)
    bounds = torch.searchsorted(ordered, torch.arange(experts + 1, device=chosen.device))
    # A tile for each full one there can be, and one that is not full for each expert that can have any rows.
    count = rows // block_rows + min(experts, rows)
    tiles = torch.empty(count, 3, dtype=torch.int32, device=chosen.device)
    tiles_kernel[(count,)](bounds, tiles, experts, block_rows=block_rows, size=triton.next_power_of_2(experts))
    return Sorted(order, tiles)


def experts_mix(
    x: Tensor,
    weights: ExpertWeights,
    scores: Tensor,
    activate: Callable[[Tensor], Tensor],
    *,
    fixed: bool = False,
    tile: Tiling | None = None,
) -> Tensor:
    """Returns the experts' output for ``x`` [tokens, hidden], in the shape of ``x``. ``scores`` [tokens, experts] are
    the router's. ``activate`` maps [rows, 2 * n] to [rows, n]. The result is that of ``mix`` in model/experts.py,
    except that outputs are added in float32. ``fixed``: the tiling is the same for any number of tokens."""
    spec = weights.spec
    shares, chosen = route(scores, spec)
    rows = chosen.numel()
    if not rows:
        return torch.empty_like(x)
    used = tile or _tiling(x, rows, spec.count, fixed)
    choices = sort_choices(chosen, spec.count, used.rows)
    inner = activate(_grouped(x.contiguous(), weights.gate_up, choices, spec.per_token, True, used))
    outputs = _grouped(inner, weights.down, choices, spec.per_token, False, used)
    result = torch.empty_like(x, memory_format=torch.contiguous_format)
    grid = (x.shape[0], triton.cdiv(x.shape[1], _SUM_BLOCK))
    weighted_kernel[grid](outputs, shares, result, x.shape[1], per_token=spec.per_token, size=_SUM_BLOCK, num_warps=4)
    return result


def _tiling(x: Tensor, rows: int, experts: int, fixed: bool) -> Tiling:
    found = tiling("experts", triton.cdiv(rows, experts), x.device, fixed)
    # float32 goes without tensor cores, in its own tiles.
    return tiling("float32", rows, x.device, fixed) if x.dtype == torch.float32 else found


def _grouped(x: Tensor, weights: Tensor, choices: Sorted, per_token: int, gather: bool, tile: Tiling) -> Tensor:
    """Each choice's product with the matrix of its expert, of ``weights`` [experts, outputs, inputs]."""
    (_, count, inputs), tiles = weights.shape, choices.tiles.shape[0]
    output = torch.empty(choices.order.shape[0], count, dtype=x.dtype, device=x.device)
    grouped_kernel[(tiles * triton.cdiv(count, tile.outputs),)](
        x,
        weights,
        output,
        choices.tiles,
        choices.order,
        tiles,
        count,
        inputs,
        per_token=per_token,
        gather=gather,
        whole=inputs % tile.inputs == 0,
        block_rows=tile.rows,
        block_outputs=tile.outputs,
        step=tile.inputs,
        group=tile.group,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return output


def variants() -> Iterator[Variant]:
    """Yields the variants to compile ahead: eight of 128 experts, as in Qwen3-30B-A3B, in bfloat16."""
    types = {"x": "*bf16", "weights": "*bf16", "output": "*bf16", "tiles": "*i32", "order": "*i64"}
    types |= {"tile_count": "i32", "count": "i32", "inputs": "i32"}
    for _, tile in DEFAULT["experts"]:
        constants: dict[str, object] = {"per_token": 8, "gather": True, "whole": True, "step": tile.inputs}
        constants |= {"block_rows": tile.rows, "block_outputs": tile.outputs, "group": tile.group}
        name = f"experts {tile.rows}x{tile.outputs}x{tile.inputs}"
        aligned = frozenset(("count", "inputs"))
        gathering = Variant(f"{name} gather", grouped_kernel, types, constants, aligned, tile.warps, tile.stages)
        yield gathering
        yield replace(gathering, name=f"{name} scatter", constants={**constants, "gather": False})
    finding = {"bounds": "*i64", "tiles": "*i32", "experts": "i32"}
    yield Variant("experts tiles", tiles_kernel, finding, {"block_rows": 16, "size": 128}, frozenset(("experts",)))
    adding = {"outputs": "*bf16", "shares": "*bf16", "result": "*bf16", "hidden": "i32"}
    sizes = {"per_token": 8, "size": _SUM_BLOCK}
    yield Variant("experts weighted", weighted_kernel, adding, sizes, frozenset(("hidden",)))
