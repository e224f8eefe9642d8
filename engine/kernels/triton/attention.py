"""Paged attention (Kwon et al. 2023) of a ragged batch: chunks of prompts and decodes in one call.

Tiles of many queries use FlashAttention-2 (Dao 2023) over keys in the blocks of a block table. Tiles of few queries use
Flash-Decoding (Dao et al. 2023). In both, the query heads that share a KV head (Ainslie et al. 2023) are rows of one
tile, so that each key is read once for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from engine.kernels.triton.attention_metadata import PagedPlan
from engine.kernels.triton.attention_split import merge_kernel, split_kernel
from engine.kernels.triton.attention_tiles import tiles_kernel
from engine.kernels.triton.dependent_launch import options
from engine.kernels.triton.formats import form_of
from engine.kernels.triton.tuning import AttentionTuning, Shape, card_of, format_of, padded_head, tuning_of
from engine.kv.format import KVPages

_PROGRAMS_PER_SM = 4
_MAX_SPLIT = 8192  # keys: a long sequence among short ones must not be left to one program
_MERGED_AT_ONCE = 16  # parts


@dataclass(frozen=True, slots=True)
class _Call:
    """One call, as far as the kernels share it."""

    query: Tensor
    cache: KVPages
    plan: PagedPlan
    out: Tensor
    bend: float
    unit: float
    constants: dict[str, object]  # that all kernels take
    deterministic: bool
    tuning: AttentionTuning

    @property
    def kv_heads(self) -> int:
        return self.cache.numbers.shape[1] // 2

    @property
    def group(self) -> int:
        return self.query.shape[1] // self.kv_heads

    @property
    def words(self) -> str:
        """What bytes are, read two at a time where the kernels can; else nothing."""
        paired = self.query.dtype == torch.bfloat16 and self.query.shape[2] % 2 == 0
        return form_of(self.cache) if self.cache.scales is not None and paired and self.query.is_cuda else ""

    @property
    def split(self) -> int:
        return self.tuning.exact_split if self.deterministic else 0

    def inputs(self, tiles: Tensor) -> tuple[Tensor, ...]:
        plan, cache = self.plan, self.cache
        numbers = cache.numbers.view(torch.int16) if self.words else cache.numbers
        scales = cache.numbers if cache.scales is None else cache.scales
        return self.query, numbers, scales, plan.tables, plan.starts, plan.counts, plan.lengths, tiles

    def options(self, shape: Shape) -> dict[str, object]:
        # Fused or not, a product and a sum round differently; that must not hang on the code around them.
        fused = not self.deterministic
        _, launched = options(self.query.device)
        return {"num_warps": shape.warps, "num_stages": shape.stages, "enable_fp_fusion": fused, **launched}


def paged_attention(
    query: Tensor,
    cache: KVPages,
    plan: PagedPlan,
    scale: float,
    score_cap: float | None,
    *,
    deterministic: bool = False,
    tuning: AttentionTuning | None = None,
    multiprocessors: int = 132,
) -> Tensor:
    """Returns the causal attention of ``query`` [rows, heads, head_dim] to the keys in ``cache``. The result has the
    same shape and is contiguous.

    ``query`` may be a part of a larger tensor: its rows may have any stride, but each row is contiguous. Scores are
    multiplied by ``scale`` and, with a ``score_cap`` c, become c * tanh(score / c) (Gemma 2). Row r of a sequence is at
    position length - count + r. It attends to all positions up to its own; with the plan's window, to the last
    ``window`` of these. Rows of no tile are not written. The function does not wait for the device, and launches depend
    only on shapes and on the plan's Python numbers.

    With ``deterministic``, a row's result is bitwise the same whatever else is in its batch, however its prompt was cut
    into chunks, and in either kind of tile. That holds for four reasons. Every product has one shape and every kernel
    the same number of warps, so that all sums have the order of one compiled loop. Key tiles and splits are at fixed
    positions and are merged from first to last. A key tile that a row does not attend to leaves the row unchanged. No
    product is fused with a sum, which compilers do differently around a mask.

    ``tuning`` overrides the tuning for the card; ``multiprocessors`` is the card's number of them. Raises ValueError
    for tiles of more queries than the shapes have room for.
    """
    rows, heads, head_dim = query.shape
    numbers = cache.numbers
    assert query.stride()[1:] == (head_dim, 1)
    assert numbers.is_contiguous()
    out = torch.empty((rows, heads, head_dim), dtype=query.dtype, device=query.device)
    chosen = tuning or tuning_of(card_of(query.device), head_dim, format_of(query.dtype, numbers.dtype))
    bend, unit = _factors(scale, score_cap)
    constants: dict[str, object] = {
        "KV_HEADS": numbers.shape[1] // 2,
        "GROUP": heads * 2 // numbers.shape[1],
        "HEAD_DIM": head_dim,
        "WINDOW": plan.window or 0,
        "SPLIT": chosen.exact_split if deterministic else 0,
        "BLOCK_D": padded_head(head_dim),
        "OVERLAP": options(query.device)[0],
    }
    call = _Call(query, cache, plan, out, bend, unit, constants, deterministic, chosen)
    if plan.tiles.shape[0] > 0:
        _attend_tiles(call, chosen.exact if deterministic else chosen.many)
    if plan.few_tiles.shape[0] > 0:
        _attend_splits(call, chosen.exact if deterministic else chosen.few, multiprocessors)
    return out


def _factors(scale: float, score_cap: float | None) -> tuple[float, float]:
    """What a score is multiplied by inside of a cap, and what makes powers of two of what comes out."""
    assert scale > 0
    if score_cap is None:
        return 0.0, scale * math.log2(math.e)
    assert score_cap > 0
    return 2 * scale / score_cap * math.log2(math.e), score_cap * math.log2(math.e)


def _attended(call: _Call, shape: Shape, queries: int) -> dict[str, object]:
    """Constants of the kernels that read keys."""
    block_m = max(16, shape.rows, triton.next_power_of_2(call.group))
    if not 0 < queries * call.group <= block_m:
        raise ValueError(f"tiles of {queries} queries of {call.group} heads in {block_m} rows")
    return {
        **call.constants,
        "BLOCK_SIZE": call.cache.numbers.shape[2],
        "CAPPED": call.bend > 0,
        "SCALED": call.cache.scales is not None,
        "WORDS": call.words,
        "QUERIES": queries,
        "BLOCK_M": block_m,
        "BLOCK_N": shape.keys,
    }


def _attend_tiles(call: _Call, shape: Shape) -> None:
    plan = call.plan
    tiles_kernel[(call.kv_heads, plan.tiles.shape[0])](
        *call.inputs(plan.tiles),
        call.out,
        call.bend,
        call.unit,
        call.query.stride(0),
        plan.tables.stride(0),
        **_attended(call, shape, plan.tile_queries),
        **call.options(shape),
    )


def _attend_splits(call: _Call, shape: Shape, multiprocessors: int) -> None:
    plan, device = call.plan, call.query.device
    tiles, queries, head_dim = plan.few_tiles.shape[0], plan.few_queries, call.query.shape[2]
    constants = _attended(call, shape, queries)
    least = call.tuning.least_split
    # A window may begin anywhere in its first key tile, and in its first split.
    slack = queries + max(shape.keys, call.split)
    seen = plan.longest if plan.window is None else min(plan.longest, plan.window + slack)
    splits = -(-seen // call.split) if call.split else splits_of(tiles * call.kv_heads, seen, least, multiprocessors)
    alone = splits == 1
    places = (tiles, call.kv_heads, queries * call.group, splits)
    parts = torch.empty((1,) if alone else (*places, head_dim), dtype=torch.float32, device=device)
    # Two allocations: kernels are compiled anew for pointers that are aligned otherwise.
    tops, totals = (torch.empty((1,) if alone else places, dtype=torch.float32, device=device) for _ in range(2))
    split_kernel[(call.kv_heads, splits, tiles)](
        *call.inputs(plan.few_tiles),
        call.out,
        parts,
        tops,
        totals,
        call.bend,
        call.unit,
        call.query.stride(0),
        plan.tables.stride(0),
        splits,
        **constants,
        MIN_KEYS=least,
        ALONE=alone,
        **call.options(shape),
    )
    if alone:
        return
    merge_kernel[(queries * call.group, call.kv_heads, tiles)](
        plan.starts,
        plan.counts,
        plan.lengths,
        plan.few_tiles,
        call.out,
        parts,
        tops,
        totals,
        splits,
        **call.constants,
        QUERIES=queries,
        MIN_KEYS=least,
        BLOCK_N=shape.keys,
        SPLITS=_MERGED_AT_ONCE,
        **call.options(Shape(0, 0, 4 if call.split == 0 else 1, 1)),
    )


def splits_of(programs: int, longest: int, least: int, multiprocessors: int) -> int:
    """Returns the number of programs among which the keys of each tile and KV head are split, so that all
    multiprocessors are busy. ``programs`` is the number of tiles times KV heads, ``longest`` the most keys of a tile,
    ``least`` the fewest keys of a program. It depends on numbers that the host has; programs of a tile with fewer keys
    may have nothing to do."""
    wanted = -(-_PROGRAMS_PER_SM * multiprocessors // programs)
    return max(1, min(max(wanted, -(-longest // _MAX_SPLIT)), -(-longest // least)))
