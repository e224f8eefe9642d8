"""Attention of few queries of one sequence: its keys are split among programs, whose results are then merged.

As in Flash-Decoding (Dao et al. 2023), a partial result is a weighted sum of values relative to the part's own largest
score, which is stored with it.
"""

# ruff: noqa: N803 (what is known when a kernel is compiled stands in capitals)
from __future__ import annotations

import triton
import triton.language as tl

from engine.kernels.triton.attention_walk import first_seen, load_queries, merge, place_of, store_rows, walk
from engine.kernels.triton.dependent_launch import wait_for_inputs


@triton.jit
def _split_of(
    position: tl.tensor, rows: tl.tensor, splits: tl.tensor, WINDOW: tl.constexpr, SPLIT: tl.constexpr,
    MIN_KEYS: tl.constexpr, BLOCK_N: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Where the first split of a tile begins, how many keys each has, and where the last ends."""
    lo = first_seen(position, WINDOW) // BLOCK_N * BLOCK_N
    end = position + rows
    if SPLIT > 0:
        return lo // SPLIT * SPLIT, SPLIT, end
    size = tl.cdiv(tl.cdiv(end - lo, splits), BLOCK_N) * BLOCK_N
    return lo, tl.maximum(size, MIN_KEYS), end


@triton.jit(do_not_specialize=("width", "splits"))
def split_kernel(
    query: tl.tensor, numbers: tl.tensor, scales: tl.tensor, tables: tl.tensor, starts: tl.tensor, counts: tl.tensor,
    lengths: tl.tensor, tiles: tl.tensor, out: tl.tensor, parts: tl.tensor, tops: tl.tensor, totals: tl.tensor,
    bend: tl.tensor, unit: tl.tensor, row_stride: tl.tensor, width: tl.tensor, splits: tl.tensor,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr, CAPPED: tl.constexpr, SCALED: tl.constexpr, WORDS: tl.constexpr, QUERIES: tl.constexpr,
    SPLIT: tl.constexpr,
    MIN_KEYS: tl.constexpr, ALONE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    OVERLAP: tl.constexpr,
) -> None:  # fmt: skip
    """Computes the partial attention of one split of a tile's keys. Grid (kv_heads, splits, tiles). Shapes are those of
    ``PagedPlan``; ``query`` [rows, heads, head_dim] with ``row_stride``. Writes ``parts`` [tiles, kv_heads, QUERIES *
    GROUP, splits, head_dim] float32 and, without the last dimension, ``tops`` and ``totals``; if ALONE, each tile has
    one split, which is written to ``out`` instead.

    A split has SPLIT keys or, if SPLIT is 0, an equal share of the tile's keys, but at least MIN_KEYS. Both are
    multiples of BLOCK_N. ``numbers``, ``scales``, ``bend``, ``unit`` and the constants are as in ``walk``; ``width`` is
    that of the block tables.
    """
    head = tl.program_id(0)
    split = tl.program_id(1)
    tile = tl.program_id(2)
    wait_for_inputs(OVERLAP)
    sequence = tl.load(tiles + 2 * tile)
    if sequence < 0:
        return
    row, rows, position = place_of(tiles, starts, counts, lengths, tile, sequence, QUERIES)
    if rows <= 0:
        return
    begin, size, end = _split_of(position, rows, splits, WINDOW, SPLIT, MIN_KEYS, BLOCK_N)
    low = first_seen(position, WINDOW)
    lo = begin + split * size
    if lo >= end:
        return
    hi = tl.minimum(lo + size, end)
    lo = tl.maximum(lo, low // BLOCK_N * BLOCK_N)
    q = load_queries(query, row, rows, row_stride, head, GROUP, HEAD_DIM, BLOCK_M, BLOCK_D)
    m = tl.arange(0, BLOCK_M)
    # Rows beyond the tile's are as its last.
    positions = tl.minimum(position + m // GROUP, end - 1)
    table = tables + sequence.to(tl.int64) * width
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    top, total, acc = walk(
        top, total, acc, q, positions, numbers, scales, table, head, lo, hi, low, end, bend, unit,
        KV_HEADS, HEAD_DIM, BLOCK_SIZE, WINDOW, CAPPED, SCALED, WORDS, True, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    if ALONE:
        store_rows(out, acc, total, row, rows, head, KV_HEADS, GROUP, HEAD_DIM, BLOCK_M, BLOCK_D)
    else:
        d = tl.arange(0, BLOCK_D)
        at = ((tile * KV_HEADS + head).to(tl.int64) * (QUERIES * GROUP) + m) * splits + split
        stored = m < rows * GROUP
        tl.store(tops + at, top, mask=stored)
        tl.store(totals + at, total, mask=stored)
        mask = stored[:, None] & (d < HEAD_DIM)[None, :]
        tl.store(parts + (at * HEAD_DIM)[:, None] + d[None, :], acc, mask=mask)


@triton.jit
def _merge_in_order(
    parts: tl.tensor, tops: tl.tensor, totals: tl.tensor, count: tl.tensor, d: tl.tensor, HEAD_DIM: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """One row's parts, one after the other, as ``tiles_kernel`` merges its own: total and acc [BLOCK_D]."""
    top = tl.load(tops)
    total = tl.load(totals)
    acc = tl.load(parts + d, mask=d < HEAD_DIM, other=0.0)
    for split in range(1, count):
        other = tl.load(tops + split)
        part = tl.load(parts + split * HEAD_DIM + d, mask=d < HEAD_DIM, other=0.0)
        top, mine, its = merge(top, other, other)
        total = total * mine + tl.load(totals + split) * its
        acc = acc * mine + part * its
    return total, acc


@triton.jit
def _merge_at_once(
    parts: tl.tensor, tops: tl.tensor, totals: tl.tensor, count: tl.tensor, d: tl.tensor, HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """One row's parts, SPLITS at a time: all loads of a round are under way together. Total and acc [BLOCK_D]."""
    top = float("-inf")
    total = 0.0
    acc = d * 0.0
    for first in range(0, count, SPLITS):
        split = first + tl.arange(0, SPLITS)
        some = split < count
        others = tl.load(tops + split, mask=some, other=float("-inf"))
        their = tl.load(totals + split, mask=some, other=0.0)
        mask = some[:, None] & (d < HEAD_DIM)[None, :]
        part = tl.load(parts + (split * HEAD_DIM)[:, None] + d[None, :], mask=mask, other=0.0)
        top, mine, weights = merge(top, others, tl.max(others, 0))
        total = total * mine + tl.sum(their * weights, 0)
        acc = acc * mine + tl.sum(part * weights[:, None], 0)
    return total, acc


@triton.jit(do_not_specialize=("splits",))
def merge_kernel(
    starts: tl.tensor, counts: tl.tensor, lengths: tl.tensor, tiles: tl.tensor, out: tl.tensor, parts: tl.tensor,
    tops: tl.tensor, totals: tl.tensor, splits: tl.tensor, KV_HEADS: tl.constexpr, GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr, WINDOW: tl.constexpr, QUERIES: tl.constexpr, SPLIT: tl.constexpr, MIN_KEYS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, SPLITS: tl.constexpr, OVERLAP: tl.constexpr,
) -> None:  # fmt: skip
    """Merges the partial results of ``split_kernel`` into ``out`` [rows, heads, head_dim]: in order if SPLIT is set,
    else SPLITS parts at a time. Grid (QUERIES * GROUP, kv_heads, tiles). The other arguments are those of
    ``split_kernel``."""
    m = tl.program_id(0)
    head = tl.program_id(1)
    tile = tl.program_id(2)
    wait_for_inputs(OVERLAP)
    sequence = tl.load(tiles + 2 * tile)
    if sequence < 0:
        return
    row, rows, position = place_of(tiles, starts, counts, lengths, tile, sequence, QUERIES)
    if m >= rows * GROUP:
        return
    begin, size, end = _split_of(position, rows, splits, WINDOW, SPLIT, MIN_KEYS, BLOCK_N)
    count = tl.cdiv(end - begin, size)
    at = ((tile * KV_HEADS + head).to(tl.int64) * (QUERIES * GROUP) + m) * splits
    d = tl.arange(0, BLOCK_D)
    if SPLIT > 0:
        total, acc = _merge_in_order(parts + at * HEAD_DIM, tops + at, totals + at, count, d, HEAD_DIM)
    else:
        total, acc = _merge_at_once(parts + at * HEAD_DIM, tops + at, totals + at, count, d, HEAD_DIM, SPLITS)
    place = (row + m // GROUP).to(tl.int64) * (KV_HEADS * GROUP) + head * GROUP + m % GROUP
    tl.store(out + place * HEAD_DIM + d, (acc / total).to(out.dtype.element_ty), mask=d < HEAD_DIM)
