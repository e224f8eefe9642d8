"""Paged attention against attention as it is defined."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.kernels.triton.attention import paged_attention
from engine.kernels.triton.tiles import queries_per_tile
from engine.kernels.triton.tuning import AttentionTuning, Shape, format_of, tuning_of
from engine.kv.format import FP8, INT8, KVFormat
from tests.engine.triton.pages import Pages, Part, dense_attention, make_pages, make_plan

SMALL = AttentionTuning(
    few=Shape(16, 16, 4, 2), many=Shape(32, 16, 4, 2), exact=Shape(16, 16, 4, 2), least_split=32, exact_split=32
)
FLOAT = KVFormat("float32", torch.float32)
HALF = KVFormat("float16", torch.float16)
FORMATS = {"float32": FLOAT, "float16": HALF, "int8": INT8, "fp8": FP8}
DECODES = (Part(1, 70), Part(1, 1), Part(1, 33))
PROMPTS = (Part(40, 40), Part(21, 75))
MIXED = (Part(1, 70), Part(37, 50), Part(3, 64), Part(20, 20))


def make_query(rows: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[rows, heads, head_dim], a part of a larger tensor."""
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(rows, heads + 2, head_dim, generator=generator).to(device, dtype)
    return qkv[:, :heads]


def check(
    pages: Pages,
    parts: Sequence[Part],
    group: int,
    *,
    dtype: torch.dtype = torch.float32,
    window: int | None = None,
    cap: float | None = None,
    padding: int = 0,
    deterministic: bool = False,
    tuning: AttentionTuning | None = SMALL,
    multiprocessors: int = 4,
) -> None:
    """Asserts that what comes out is what the definition gives."""
    both, head_dim = pages.cache.numbers.shape[1], pages.cache.numbers.shape[3]
    heads = both // 2 * group
    known = tuning or tuning_of("", head_dim, format_of(dtype, pages.cache.numbers.dtype))
    few, many = (queries_per_tile(rows, heads, both // 2) for rows in known.rows(deterministic))
    plan = make_plan(pages, parts, window=window, few_queries=few, tile_queries=many, padding=padding)
    count = sum(part.count for part in parts)
    query = make_query(count + padding, heads, head_dim, dtype, pages.cache.numbers.device)
    scale = 1.7 * head_dim**-0.5
    output = paged_attention(
        query,
        pages.cache,
        plan,
        scale,
        cap,
        deterministic=deterministic,
        tuning=tuning,
        multiprocessors=multiprocessors,
    )
    assert output.shape == query.shape
    assert output.dtype == dtype
    assert output.is_contiguous()
    expected = dense_attention(query[:count], pages, parts, scale, cap, window)
    tolerance = {torch.float32: 2e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(output[:count].cpu().double(), expected, rtol=tolerance, atol=tolerance)


def lengths_of(parts: Sequence[Part]) -> list[int]:
    return [part.length for part in parts]


@pytest.mark.parametrize("parts", [DECODES, PROMPTS, MIXED], ids=["decodes", "prompts", "mixed"])
@pytest.mark.parametrize("window", [None, 1, 24, 200])
def test_queries_see_what_is_not_after_them_nor_before_the_window(
    parts: Sequence[Part], window: int | None, device: torch.device
) -> None:
    pages = make_pages(lengths_of(parts), FLOAT, 1, 16, 16, device)
    check(pages, parts, 2, window=window)
    check(pages, parts, 2, window=window, deterministic=True)


@pytest.mark.parametrize("head_dim", [8, 16, 64, 80, 96, 128, 256])
def test_heads_of_every_size(head_dim: int, device: torch.device) -> None:
    parts = (Part(1, 37), Part(18, 30))
    check(make_pages(lengths_of(parts), FLOAT, 2, 16, head_dim, device), parts, 2)


@pytest.mark.parametrize(("kv_heads", "group"), [(3, 1), (2, 4), (1, 5), (1, 7), (1, 17)])
def test_any_number_of_heads_shares_keys(kv_heads: int, group: int, device: torch.device) -> None:
    check(make_pages(lengths_of(MIXED), FLOAT, kv_heads, 16, 16, device), MIXED, group)


@pytest.mark.parametrize("block_size", [16, 32, 64])
@pytest.mark.parametrize("keys", [16, 32, 64])
def test_key_tiles_lie_across_blocks_and_within_them(block_size: int, keys: int, device: torch.device) -> None:
    tuning = AttentionTuning(Shape(16, keys, 4, 2), Shape(32, keys, 4, 2), Shape(16, keys, 4, 2), least_split=64)
    check(make_pages(lengths_of(MIXED), FLOAT, 1, block_size, 16, device), MIXED, 4, tuning=tuning)


@pytest.mark.parametrize("cap", [0.5, 20.0])
@pytest.mark.parametrize("window", [None, 24])
def test_scores_are_capped(cap: float, window: int | None, device: torch.device) -> None:
    check(make_pages(lengths_of(MIXED), FLOAT, 1, 16, 32, device), MIXED, 2, cap=cap, window=window)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_caches_of_every_format(form: str, dtype: torch.dtype, device: torch.device) -> None:
    if dtype == torch.bfloat16 and device.type != "cuda":
        pytest.skip("the interpreter cannot multiply bfloat16")
    pages = make_pages(lengths_of(MIXED), FORMATS[form], 1, 16, 32, device)
    check(pages, MIXED, 2, dtype=dtype, cap=30.0)
    check(pages, MIXED, 2, dtype=dtype, window=24, deterministic=True)


@pytest.mark.parametrize("deterministic", [False, True])
def test_padding_computes_nothing_and_reads_nothing(deterministic: bool, device: torch.device) -> None:
    pages = make_pages(lengths_of(MIXED), INT8, 1, 16, 16, device)
    check(pages, MIXED, 2, padding=3, deterministic=deterministic)


def test_any_number_of_programs_shares_the_keys_of_a_tile(device: torch.device) -> None:
    parts = (Part(1, 400), Part(3, 30))
    tuning = AttentionTuning(Shape(16, 16, 4, 2), Shape(32, 16, 4, 2), Shape(16, 16, 4, 2), least_split=16)
    pages = make_pages(lengths_of(parts), FLOAT, 1, 16, 16, device)
    for multiprocessors in (1, 8, 132):
        check(pages, parts, 2, tuning=tuning, multiprocessors=multiprocessors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_shapes_used_by_default(dtype: torch.dtype, device: torch.device) -> None:
    parts = (Part(1, 300), Part(70, 140))
    check(make_pages(lengths_of(parts), FLOAT, 1, 16, 64, device), parts, 4, dtype=dtype, tuning=None)


def test_tiles_with_more_queries_than_rows_are_refused(device: torch.device) -> None:
    pages = make_pages([40], FLOAT, 1, 16, 16, device)
    plan = make_plan(pages, [Part(40, 40)], tile_queries=32)
    query = make_query(40, 2, 16, torch.float32, device)
    with pytest.raises(ValueError, match="32 queries of 2 heads in 32 rows"):
        paged_attention(query, pages.cache, plan, 1.0, None, tuning=SMALL)


@given(
    parts=st.lists(
        st.integers(1, 90).flatmap(lambda length: st.builds(Part, st.integers(1, length), st.just(length))),
        min_size=1,
        max_size=3,
    ),
    group=st.sampled_from([1, 2, 3, 8]),
    head_dim=st.sampled_from([16, 24]),
    block_size=st.sampled_from([16, 32]),
    window=st.none() | st.integers(1, 100),
    cap=st.none() | st.floats(1, 50),
    form=st.sampled_from([FLOAT, INT8]),
    deterministic=st.booleans(),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_step(
    parts: list[Part],
    group: int,
    head_dim: int,
    block_size: int,
    window: int | None,
    cap: float | None,
    form: KVFormat,
    deterministic: bool,
    device: torch.device,
) -> None:
    pages = make_pages(lengths_of(parts), form, 1, block_size, head_dim, device)
    check(pages, parts, group, window=window, cap=cap, deterministic=deterministic)
