"""The parts that all attention kernels share: the location of a tile, and the loop over its keys with an online
softmax.

A tile has consecutive queries of one sequence, times the query heads that share a KV head: row m of it is head m %
GROUP of query m // GROUP. Softmax is online (Milakov and Gimelshein 2018) and in powers of two, as in FlashAttention-2
(Dao 2023). Three numbers per row describe the keys so far: ``top``, the largest score in units of one power of two;
``total``, the sum of 2 ** (score - top); ``acc``, that sum weighted by values.

Key tiles always begin at positions that are multiples of BLOCK_N, so that a row's result does not depend on the other
rows of its tile: a key tile that a row does not attend to multiplies by one and adds zero.
"""

# ruff: noqa: N803 (what is known when a kernel is compiled stands in capitals)
from __future__ import annotations

import triton
import triton.language as tl

from engine.kernels.triton.bytes import pairs_of_e4m3, pairs_of_int8


@triton.jit
def place_of(
    tiles: tl.tensor, starts: tl.tensor, counts: tl.tensor, lengths: tl.tensor, tile: tl.tensor, sequence: tl.tensor,
    QUERIES: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Returns the first row of a tile, counted over all rows of the step; its number of rows; and the position of its
    first row in the sequence. ``tiles``, ``starts``, ``counts`` and ``lengths`` are those of ``PagedPlan``; ``tile``
    and ``sequence`` are indices into them. QUERIES is the most rows of a tile."""
    offset = tl.load(tiles + 2 * tile + 1)
    count = tl.load(counts + sequence)
    rows = tl.minimum(count - offset, QUERIES)
    return tl.load(starts + sequence) + offset, rows, tl.load(lengths + sequence) - count + offset


@triton.jit
def first_seen(position: tl.tensor, WINDOW: tl.constexpr) -> tl.tensor:
    """Returns the position of the first key that the query at ``position`` attends to. WINDOW is the most keys that a
    query attends to, itself included; 0: all."""
    return tl.maximum(position - (WINDOW - 1), 0) if WINDOW > 0 else position * 0


@triton.jit
def load_queries(
    query: tl.tensor, row: tl.tensor, rows: tl.tensor, row_stride: tl.tensor, head: tl.tensor, GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Returns the queries of a tile, [BLOCK_M, BLOCK_D], with zeros beyond the tile's rows and the head's elements.
    ``query`` is [rows, heads, head_dim] with rows ``row_stride`` elements apart; the tile has ``rows`` rows from
    ``row`` on, and the GROUP query heads of the KV head ``head``."""
    m = tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    at = (row + m // GROUP).to(tl.int64) * row_stride + (head * GROUP + m % GROUP) * HEAD_DIM
    mask = (m < rows * GROUP)[:, None]
    if BLOCK_D != HEAD_DIM:
        mask = mask & (d < HEAD_DIM)[None, :]
    return tl.load(query + at[:, None] + d[None, :], mask=mask, other=0.0)


@triton.jit
def _load_stored(
    numbers: tl.tensor, page: tl.tensor, used: tl.tensor, MASKED: tl.constexpr, SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Heads [BLOCK_N, BLOCK] of SIZE numbers, or words, as they are stored; zeros where not ``used``: what is masked
    is multiplied by zero all the same, which would not rid it of infinities."""
    d = tl.arange(0, BLOCK)
    source = numbers + (page * SIZE)[:, None] + d[None, :]
    if MASKED:
        mask = used[:, None]
        if BLOCK != SIZE:
            mask = mask & (d < SIZE)[None, :]
        return tl.load(source, mask=mask, other=0.0)
    if BLOCK != SIZE:
        return tl.load(source, mask=(d < SIZE)[None, :], other=0.0)
    return tl.load(source)


@triton.jit
def _load_numbers(
    numbers: tl.tensor, page: tl.tensor, used: tl.tensor, MASKED: tl.constexpr, WORDS: tl.constexpr,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Keys or values [BLOCK_N, BLOCK_D] as they are stored; in bfloat16 if they are read as WORDS."""
    if WORDS == "int8":
        found = pairs_of_int8(_load_stored(numbers, page, used, MASKED, HEAD_DIM // 2, BLOCK_D // 2))
    elif WORDS == "fp8":
        found = pairs_of_e4m3(_load_stored(numbers, page, used, MASKED, HEAD_DIM // 2, BLOCK_D // 2))
    else:
        found = _load_stored(numbers, page, used, MASKED, HEAD_DIM, BLOCK_D)
    return found


@triton.jit
def _load_blocks(
    table: tl.tensor, keys: tl.tensor, low: tl.tensor, end: tl.tensor, BLOCK_SIZE: tl.constexpr
) -> tl.tensor:
    """The block of each key [BLOCK_N] int32."""
    return tl.load(table + keys // BLOCK_SIZE, mask=(keys >= low) & (keys < end), other=0)


@triton.jit
def _load_scales(scales: tl.tensor, page: tl.tensor, used: tl.tensor, MASKED: tl.constexpr) -> tl.tensor:
    """[BLOCK_N] float32."""
    if MASKED:
        return tl.load(scales + page, mask=used, other=0.0).to(tl.float32)
    return tl.load(scales + page).to(tl.float32)


@triton.jit
def capped(scores: tl.tensor, bend: tl.tensor) -> tl.tensor:
    """Returns tanh(score * scale / cap), where ``bend`` is 2 * scale / cap * log2(e)."""
    return 1.0 - 2.0 / (1.0 + tl.exp2(scores * bend))


@triton.jit
def walk(
    top: tl.tensor, total: tl.tensor, acc: tl.tensor, query: tl.tensor, position: tl.tensor, numbers: tl.tensor,
    scales: tl.tensor, table: tl.tensor, head: tl.tensor, lo: tl.tensor, hi: tl.tensor, low: tl.tensor, end: tl.tensor,
    bend: tl.tensor, unit: tl.tensor, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr, CAPPED: tl.constexpr, SCALED: tl.constexpr, WORDS: tl.constexpr, MASKED: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Returns ``top``, ``total`` and ``acc`` after the keys from ``lo`` (a multiple of BLOCK_N) up to ``hi``.

    Nothing before ``low`` or from ``end`` on is read. Without MASKED, every row must see all keys from ``lo`` to the
    end of the last key tile. ``position`` [BLOCK_M] is that of each row's query. A score times ``unit`` is an exponent
    of two. ``numbers`` and ``scales`` are those of ``KVPages``, ``table`` is the sequence's block table, ``head`` the
    KV head. WINDOW is as in ``first_seen``. CAPPED: scores are capped by ``bend`` (``capped``). SCALED: keys and values
    have scales. WORDS is the format, ``int8`` or ``fp8``, of numbers that are read two at a time, as words; "": they
    are read one by one.
    """
    block = _load_blocks(table, lo + tl.arange(0, BLOCK_N), low, end, BLOCK_SIZE)
    for first in tl.range(lo, hi, BLOCK_N):
        keys = first + tl.arange(0, BLOCK_N)
        used = (keys >= low) & (keys < end)
        page = (block.to(tl.int64) * (2 * KV_HEADS) + head) * BLOCK_SIZE + keys % BLOCK_SIZE
        # A round ahead: were it of the same round, loads of keys could not be under way before it came.
        block = _load_blocks(table, keys + BLOCK_N, low, end, BLOCK_SIZE)
        k = _load_numbers(numbers, page, used, MASKED, WORDS, HEAD_DIM, BLOCK_D)
        scores = tl.dot(query, tl.trans(k.to(query.dtype)), input_precision="ieee")
        if SCALED:
            scores = scores * _load_scales(scales, page, used, MASKED)[None, :]
        if CAPPED:
            scores = capped(scores, bend)
        if MASKED:
            seen = keys[None, :] <= position[:, None]
            if WINDOW > 0:
                seen = seen & (keys[None, :] > position[:, None] - WINDOW)
            scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1) * unit)
        # Infinity less infinity is no number; a row that has seen nothing yet has a top of minus infinity.
        base = tl.where(higher == float("-inf"), 0.0, higher) if MASKED else higher
        weights = tl.exp2(scores * unit - base[:, None])
        shrink = tl.exp2(top - base)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        top = higher
        v = _load_numbers(numbers, page + KV_HEADS * BLOCK_SIZE, used, MASKED, WORDS, HEAD_DIM, BLOCK_D)
        if SCALED:
            value_scales = _load_scales(scales, page + KV_HEADS * BLOCK_SIZE, used, MASKED)
            if query.dtype == tl.float16:
                # The product of a weight and a scale may be too small for it.
                v = (v.to(tl.float32) * value_scales[:, None]).to(tl.float16)
            else:
                weights = weights * value_scales[None, :]
        acc = tl.dot(weights.to(query.dtype), v.to(query.dtype), acc, input_precision="ieee")
    return top, total, acc


@triton.jit
def merge(top: tl.tensor, others: tl.tensor, highest: tl.tensor) -> tl.tensor:
    """Returns the largest score of a part with the largest score ``top`` and of ``others``, whose largest is
    ``highest``, and the factors by which the sums of the part and of the others must be multiplied."""
    higher = tl.maximum(top, highest)
    base = tl.where(higher == float("-inf"), 0.0, higher)
    return higher, tl.exp2(top - base), tl.exp2(others - base)


@triton.jit
def store_rows(
    out: tl.tensor, acc: tl.tensor, total: tl.tensor, row: tl.tensor, rows: tl.tensor, head: tl.tensor,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Divides ``acc`` by ``total``, and writes the tile's rows to ``out`` [rows, heads, head_dim]. ``row``, ``rows``,
    ``head`` and GROUP are as in ``load_queries``."""
    m = tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    at = (row + m // GROUP).to(tl.int64) * (KV_HEADS * GROUP) + head * GROUP + m % GROUP
    mask = (m < rows * GROUP)[:, None]
    if BLOCK_D != HEAD_DIM:
        mask = mask & (d < HEAD_DIM)[None, :]
    result = acc / total[:, None]
    tl.store(out + (at * HEAD_DIM)[:, None] + d[None, :], result.to(out.dtype.element_ty), mask=mask)
