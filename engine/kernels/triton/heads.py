"""The work on heads between their projection and attention, in one kernel: norm, rotation, and writing to the KV cache.

A program has one row and some heads of one kind: queries, keys or values. It holds them as two halves, since a rotation
(Su et al. 2021) pairs elements half a head apart.
"""

# ruff: noqa: N803 (what is known when a kernel is compiled stands in capitals)
from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.triton.attention_metadata import PagedPlan
from engine.kernels.triton.dependent_launch import options, wait_for_inputs
from engine.kernels.triton.formats import form_of, quantised, scales_of
from engine.kernels.triton.norms import scaled
from engine.kernels.triton.variants import Variant
from engine.kv.format import KVPages

_TILE = 8
"""Heads of a program: 16 bytes for each thread to load of each half, in few warps."""


@triton.jit
def _normalised(
    low: tl.tensor, high: tl.tensor, norm: tl.tensor, places: tl.tensor, mask: tl.tensor, eps: tl.tensor,
    HEAD_DIM: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Each head by itself, in float32, as rounded to ``low``'s dtype."""
    wide_low, wide_high = low.to(tl.float32), high.to(tl.float32)
    squares = tl.sum(wide_low * wide_low + wide_high * wide_high, 1)
    scale = tl.rsqrt(squares / HEAD_DIM + eps)[:, None]
    first = tl.load(norm + places, mask, other=0.0)
    second = tl.load(norm + places + HEAD_DIM // 2, mask, other=0.0)
    return scaled(wide_low, scale, first).to(low.dtype), scaled(wide_high, scale, second).to(low.dtype)


@triton.jit
def _rotated(
    low: tl.tensor, high: tl.tensor, cos: tl.tensor, sin: tl.tensor, position: tl.tensor, columns: tl.tensor,
    HEAD_DIM: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """In float32, rounded once. The second halves of the tables are those of the first, with the sines' true sign."""
    at = position.to(tl.int64) * HEAD_DIM + HEAD_DIM // 2
    c = tl.load(cos + at + columns, columns < HEAD_DIM // 2, other=0.0)[None, :]
    s = tl.load(sin + at + columns, columns < HEAD_DIM // 2, other=0.0)[None, :]
    wide_low, wide_high = low.to(tl.float32), high.to(tl.float32)
    return (wide_low * c - wide_high * s).to(low.dtype), (wide_high * c + wide_low * s).to(low.dtype)


@triton.jit
def _write(
    low: tl.tensor, high: tl.tensor, numbers: tl.tensor, scales: tl.tensor, heads: tl.tensor, some: tl.tensor,
    columns: tl.tensor, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, FORM: tl.constexpr,
) -> None:  # fmt: skip
    """To the token's place in the first head of a block: ``heads`` [heads] are BLOCK_SIZE tokens apart."""
    target = numbers + (heads * (BLOCK_SIZE * HEAD_DIM))[:, None] + columns[None, :]
    mask = some[:, None] & (columns < HEAD_DIM // 2)[None, :]
    if FORM == "plain":
        tl.store(target, low.to(numbers.dtype.element_ty), mask)
        tl.store(target + HEAD_DIM // 2, high.to(numbers.dtype.element_ty), mask)
    else:
        wide_low, wide_high = low.to(tl.float32), high.to(tl.float32)
        scale = scales_of(wide_low, wide_high, FORM)
        tl.store(scales + heads * BLOCK_SIZE, scale.to(tl.bfloat16), some)
        tl.store(target, quantised(wide_low, scale[:, None], FORM), mask)
        tl.store(target + HEAD_DIM // 2, quantised(wide_high, scale[:, None], FORM), mask)


@triton.jit
def place_kernel(
    qkv: tl.tensor, norm: tl.tensor, cos: tl.tensor, sin: tl.tensor, positions: tl.tensor, sequences: tl.tensor,
    tables: tl.tensor, numbers: tl.tensor, scales: tl.tensor, stride: tl.tensor, width: tl.tensor, eps: tl.tensor,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    NORM: tl.constexpr, ROTATE: tl.constexpr, FORM: tl.constexpr, TILE: tl.constexpr, HALF: tl.constexpr,
    QUERY_TILES: tl.constexpr, KV_TILES: tl.constexpr, OVERLAP: tl.constexpr,
) -> None:  # fmt: skip
    """Computes ``place_heads`` for one row and one tile of heads. Grid (rows, QUERY_TILES + 2 KV_TILES): tiles of
    queries, if queries change, of keys, and of values. HALF is a power of two of at least half a head."""
    row = tl.program_id(0)
    wait_for_inputs(OVERLAP)
    position = tl.load(positions + row)
    if position < 0:
        return
    tile = tl.program_id(1)
    is_query = tile < QUERY_TILES
    is_value = tile >= QUERY_TILES + KV_TILES
    begin = tl.where(is_query, 0, tl.where(is_value, HEADS + KV_HEADS, HEADS))
    end = tl.where(is_query, HEADS, tl.where(is_value, HEADS + 2 * KV_HEADS, HEADS + KV_HEADS))
    skipped = tl.where(is_query, 0, tl.where(is_value, QUERY_TILES + KV_TILES, QUERY_TILES))
    heads = begin + (tile - skipped) * TILE + tl.arange(0, TILE)
    columns = tl.arange(0, HALF)
    places = heads[:, None] * HEAD_DIM + columns[None, :]
    mask = (heads < end)[:, None] & (columns < HEAD_DIM // 2)[None, :]
    source = qkv + row.to(tl.int64) * stride + places
    low = tl.load(source, mask, other=0.0)
    high = tl.load(source + HEAD_DIM // 2, mask, other=0.0)
    if tile < QUERY_TILES + KV_TILES:
        if NORM:
            low, high = _normalised(low, high, norm, places, mask, eps, HEAD_DIM)
        if ROTATE:
            low, high = _rotated(low, high, cos, sin, position, columns, HEAD_DIM)
    if is_query:
        tl.store(source, low, mask)
        tl.store(source + HEAD_DIM // 2, high, mask)
    else:
        table = tables + tl.load(sequences + row).to(tl.int64) * width
        block = tl.load(table + position // BLOCK_SIZE).to(tl.int64)
        token = block * (2 * KV_HEADS * BLOCK_SIZE) + position % BLOCK_SIZE
        _write(
            low, high, numbers + token * HEAD_DIM, scales + token, heads - HEADS, heads < end,
            columns, HEAD_DIM, BLOCK_SIZE, FORM,
        )  # fmt: skip


def place_heads(qkv: Tensor, norm: Tensor | None, eps: float, cache: KVPages, plan: PagedPlan) -> None:
    """Does the work of ``Kernels.place_heads`` on ``qkv`` [rows, heads + 2 kv_heads, head_dim], each row contiguous.
    Keys and values in ``qkv`` are not changed. Rows at position -1, padding, are skipped."""
    rows, count, head_dim = qkv.shape
    kv_heads, block_size = cache.numbers.shape[1] // 2, cache.numbers.shape[2]
    heads = count - 2 * kv_heads
    tile, half, warps = _shape(heads, kv_heads, head_dim)
    changed = norm is not None or plan.rotation is not None
    query_tiles, kv_tiles = triton.cdiv(heads, tile) if changed else 0, triton.cdiv(kv_heads, tile)
    form = form_of(cache)
    numbers = cache.numbers.view(torch.uint8) if form == "fp8" else cache.numbers
    cos, sin = (qkv, qkv) if plan.rotation is None else plan.rotation
    overlap, launched = options(qkv.device)
    if rows:
        place_kernel[(rows, query_tiles + 2 * kv_tiles)](
            qkv, qkv if norm is None else norm, cos, sin, plan.positions, plan.sequences, plan.tables,
            numbers, numbers if cache.scales is None else cache.scales, qkv.stride(0), plan.tables.stride(0), eps,
            HEADS=heads, KV_HEADS=kv_heads, HEAD_DIM=head_dim, BLOCK_SIZE=block_size, NORM=norm is not None,
            ROTATE=plan.rotation is not None, FORM=form, TILE=tile, HALF=half,
            QUERY_TILES=query_tiles, KV_TILES=kv_tiles, OVERLAP=overlap, num_warps=warps, **launched,
        )  # fmt: skip


def _shape(heads: int, kv_heads: int, head_dim: int) -> tuple[int, int, int]:
    """Heads of a tile, the padded half of a head, and warps."""
    tile = min(_TILE, triton.next_power_of_2(max(heads, kv_heads)))
    half = triton.next_power_of_2(head_dim // 2)
    return tile, half, max(1, tile * half // 256)


def variants() -> Iterator[Variant]:
    """Yields the variants to compile ahead: Llama-3.1-8B and the Qwen3 sizes, whose heads have norms, in every KV
    format; heads of 64, 80 and 256 elements."""
    shapes = {
        "llama-3.1-8b": (32, 8, 128, False),
        "qwen3-8b": (32, 8, 128, True),
        "qwen3-0.6b": (16, 8, 128, True),
        "heads of 64": (32, 8, 64, False),
        "heads of 80": (32, 32, 80, False),
        "heads of 256": (8, 4, 256, True),
    }
    stored = {"plain": "*bf16", "int8": "*i8", "fp8": "*u8"}
    for name, (heads, kv_heads, head_dim, norm) in shapes.items():
        tile, half, warps = _shape(heads, kv_heads, head_dim)
        for form, numbers in stored.items():
            pointers = {"qkv": "*bf16", "norm": "*bf16", "cos": "*fp32", "sin": "*fp32", "positions": "*i32"}
            pointers |= {"sequences": "*i32", "tables": "*i32", "numbers": numbers, "scales": "*bf16"}
            yield Variant(
                f"place_heads {name} {form}",
                place_kernel,
                pointers | {"stride": "i32", "width": "i32", "eps": "fp32"},
                {"HEADS": heads, "KV_HEADS": kv_heads, "HEAD_DIM": head_dim, "BLOCK_SIZE": 16, "NORM": norm}
                | {"ROTATE": True, "FORM": form, "TILE": tile, "HALF": half}
                | {"QUERY_TILES": triton.cdiv(heads, tile), "KV_TILES": triton.cdiv(kv_heads, tile), "OVERLAP": True},
                aligned=frozenset(("stride",)),
                warps=warps,
            )
