"""Attention of many queries of one sequence: a program computes one tile and loops over all keys that it attends to."""

# ruff: noqa: N803 (what is known when a kernel is compiled stands in capitals)
from __future__ import annotations

import triton
import triton.language as tl

from engine.kernels.triton.attention_walk import first_seen, load_queries, merge, place_of, store_rows, walk
from engine.kernels.triton.dependent_launch import wait_for_inputs


@triton.jit
def _walk_all(
    query: tl.tensor, position: tl.tensor, numbers: tl.tensor, scales: tl.tensor, table: tl.tensor, head: tl.tensor,
    lo: tl.tensor, hi: tl.tensor, low: tl.tensor, end: tl.tensor, full_lo: tl.tensor, full_hi: tl.tensor,
    bend: tl.tensor, unit: tl.tensor, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr, CAPPED: tl.constexpr, SCALED: tl.constexpr, WORDS: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Top, total and acc of the keys ``lo`` to ``hi``; masks outside ``full_lo`` to ``full_hi`` only."""
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    left = tl.minimum(tl.maximum(full_lo, lo), hi)
    right = tl.minimum(tl.maximum(full_hi, left), hi)
    if WINDOW > 0:
        top, total, acc = walk(
            top, total, acc, query, position, numbers, scales, table, head, lo, left, low, end, bend, unit,
            KV_HEADS, HEAD_DIM, BLOCK_SIZE, WINDOW, CAPPED, SCALED, WORDS, True, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    top, total, acc = walk(
        top, total, acc, query, position, numbers, scales, table, head, left, right, low, end, bend, unit,
        KV_HEADS, HEAD_DIM, BLOCK_SIZE, WINDOW, CAPPED, SCALED, WORDS, False, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    return walk(
        top, total, acc, query, position, numbers, scales, table, head, right, hi, low, end, bend, unit,
        KV_HEADS, HEAD_DIM, BLOCK_SIZE, WINDOW, CAPPED, SCALED, WORDS, True, BLOCK_N, BLOCK_D,
    )  # fmt: skip


@triton.jit(do_not_specialize=("width",))
def tiles_kernel(
    query: tl.tensor, numbers: tl.tensor, scales: tl.tensor, tables: tl.tensor, starts: tl.tensor, counts: tl.tensor,
    lengths: tl.tensor, tiles: tl.tensor, out: tl.tensor, bend: tl.tensor, unit: tl.tensor, row_stride: tl.tensor,
    width: tl.tensor, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr, CAPPED: tl.constexpr, SCALED: tl.constexpr, WORDS: tl.constexpr, QUERIES: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, OVERLAP: tl.constexpr,
) -> None:  # fmt: skip
    """Computes the attention of one tile of queries. Grid (kv_heads, tiles). Shapes are those of ``PagedPlan``;
    ``query`` [rows, heads, head_dim] with ``row_stride``, ``out`` contiguous. If SPLIT is set, parts of SPLIT keys are
    computed separately and merged in order. ``numbers``, ``scales``, ``bend``, ``unit`` and the constants are as in
    ``walk``; ``width`` is that of the block tables."""
    head = tl.program_id(0)
    tile = tl.program_id(1)
    wait_for_inputs(OVERLAP)
    sequence = tl.load(tiles + 2 * tile)
    if sequence < 0:
        return
    row, rows, position = place_of(tiles, starts, counts, lengths, tile, sequence, QUERIES)
    if rows <= 0:
        return
    last = position + rows - 1
    low = first_seen(position, WINDOW)
    lo = low // BLOCK_N * BLOCK_N
    end = last + 1
    # Whole key tiles that every row sees.
    full_lo = (first_seen(last, WINDOW) + BLOCK_N - 1) // BLOCK_N * BLOCK_N
    full_hi = (position + 1) // BLOCK_N * BLOCK_N
    q = load_queries(query, row, rows, row_stride, head, GROUP, HEAD_DIM, BLOCK_M, BLOCK_D)
    # Rows beyond the tile's are as its last: with something to see, so that they are numbers.
    positions = tl.minimum(position + tl.arange(0, BLOCK_M) // GROUP, last)
    table = tables + sequence.to(tl.int64) * width
    if SPLIT == 0:
        top, total, acc = _walk_all(
            q, positions, numbers, scales, table, head, lo, end, low, end, full_lo, full_hi, bend, unit,
            KV_HEADS, HEAD_DIM, BLOCK_SIZE, WINDOW, CAPPED, SCALED, WORDS, BLOCK_M, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    else:
        top = tl.full([BLOCK_M], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_M], tl.float32)
        acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
        for begin in range(lo // SPLIT * SPLIT, end, SPLIT):
            part_top, part_total, part = _walk_all(
                q, positions, numbers, scales, table, head, tl.maximum(begin, lo), tl.minimum(begin + SPLIT, end),
                low, end, full_lo, full_hi, bend, unit,
                KV_HEADS, HEAD_DIM, BLOCK_SIZE, WINDOW, CAPPED, SCALED, WORDS, BLOCK_M, BLOCK_N, BLOCK_D,
            )  # fmt: skip
            top, mine, its = merge(top, part_top, part_top)
            total = total * mine + part_total * its
            acc = acc * mine[:, None] + part * its[:, None]
    store_rows(out, acc, total, row, rows, head, KV_HEADS, GROUP, HEAD_DIM, BLOCK_M, BLOCK_D)
