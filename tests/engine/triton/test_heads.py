"""Heads are normalised, rotated and written as the reference does it: what lands in the cache is the same bytes."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from engine.kernels.interface import AttentionPlan
from engine.kernels.reference import ReferenceKernels
from engine.kernels.triton.attention_metadata import PagedPlan
from engine.kernels.triton.heads import place_heads
from engine.kv.format import FP8, INT8, KVFormat, KVPages, dequantise
from engine.model.rope import rope_tables
from engine.model.spec import RopeSpec

EPS = 1e-6
BLOCK_SIZE = 4
BLOCKS = 9
FLOAT, HALF = KVFormat("float32", torch.float32), KVFormat("float16", torch.float16)
FORMATS = pytest.mark.parametrize("form", [FLOAT, HALF, INT8, FP8], ids=lambda form: form.name)
TABLES = torch.tensor([[3, 1, 7], [2, 8, 0]], dtype=torch.int32)
POSITIONS = torch.tensor([0, 1, 2, 3, 4, 5, 11, 6, -1], dtype=torch.int32)
SEQUENCES = torch.tensor([0, 0, 0, 0, 0, 0, 1, 0, 0], dtype=torch.int32)
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # numpy's, in the interpreter


@dataclass(frozen=True)
class Case:
    """Heads of a few tokens, and what is done to them."""

    qkv: Tensor
    kv_heads: int
    norm: Tensor | None
    rope: RopeSpec | None


def made(
    heads: int, kv_heads: int, head_dim: int, norm: bool, rope: bool, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Case:
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(len(POSITIONS), heads + 2 * kv_heads, head_dim, generator=generator).to(dtype)
    weight = torch.rand(heads + kv_heads, head_dim, generator=generator) + 0.5
    return Case(qkv, kv_heads, weight.to(dtype) if norm else None, RopeSpec() if rope else None)


def placed(case: Case, form: KVFormat, device: torch.device) -> tuple[Tensor, KVPages]:
    """By Triton: queries, keys and values as left, and the cache."""
    head_dim = case.qkv.shape[-1]
    qkv = case.qkv.to(device).clone()
    cache = KVPages.zeros(form, BLOCKS, 2 * case.kv_heads, BLOCK_SIZE, head_dim, device)
    rotation = None
    if case.rope is not None:
        cos, sin = rope_tables(case.rope, head_dim, 12)
        rotation = cos.to(device), sin.to(device)
    whole = torch.zeros(2, dtype=torch.int32, device=device)
    positions, sequences, tables = (tensor.to(device) for tensor in (POSITIONS, SEQUENCES, TABLES))
    plan = PagedPlan(
        positions=positions, sequences=sequences, tables=tables, starts=whole, counts=whole, lengths=whole,
        few_tiles=whole, tiles=whole, rotation=rotation, window=None, longest=12,
    )  # fmt: skip
    place_heads(qkv, None if case.norm is None else case.norm.to(device), EPS, cache, plan)
    return qkv.cpu(), cache


def expected(case: Case, form: KVFormat) -> tuple[Tensor, KVPages]:
    """By the reference, of the rows that are not padding."""
    some = POSITIONS >= 0
    positions, sequences = POSITIONS[some].long(), SEQUENCES[some].long()
    both, head_dim = 2 * case.kv_heads, case.qkv.shape[-1]
    blocks = TABLES[sequences, positions // BLOCK_SIZE].long()
    slots = (blocks.unsqueeze(1) * both + torch.arange(both)) * BLOCK_SIZE + (positions % BLOCK_SIZE).unsqueeze(1)
    rotation = None
    if case.rope is not None:
        cos, sin = rope_tables(case.rope, head_dim, 12)
        rotation = cos[positions].unsqueeze(1), sin[positions].unsqueeze(1)
    qkv = case.qkv[some].clone()
    cache = KVPages.zeros(form, BLOCKS, both, BLOCK_SIZE, head_dim, torch.device("cpu"))
    ReferenceKernels().place_heads(qkv, case.norm, EPS, cache, AttentionPlan(rotation, slots.view(-1), ()))
    return qkv, cache


def assert_same_bytes(found: KVPages, wanted: KVPages) -> None:
    assert torch.equal(found.numbers.cpu().view(torch.uint8), wanted.numbers.view(torch.uint8))
    if wanted.scales is not None:
        assert found.scales is not None
        torch.testing.assert_close(found.scales.cpu(), wanted.scales, rtol=0, atol=0, equal_nan=True)


def numbers(cache: KVPages) -> Tensor:
    if cache.scales is None:
        return cache.numbers.cpu().float()
    return dequantise(cache.numbers.cpu(), cache.scales.cpu(), torch.float32)


@FORMATS
@pytest.mark.parametrize("norm", [False, True], ids=["", "norm"])
@pytest.mark.parametrize("rope", [False, True], ids=["", "rope"])
@pytest.mark.parametrize("shape", [(4, 2, 16), (3, 1, 24), (10, 10, 8)])
def test_heads_are_the_references(
    device: torch.device, form: KVFormat, norm: bool, rope: bool, shape: tuple[int, int, int]
) -> None:
    case = made(*shape, norm, rope)

    qkv, cache = placed(case, form, device)

    wanted, pages = expected(case, form)
    queries = slice(0, shape[0])
    torch.testing.assert_close(qkv[:-1, queries], wanted[:, queries], rtol=1e-5, atol=1e-6)
    # Where a number lies between two of the format, the last bit of the norm decides.
    step = 0.02 if form is INT8 else 0.0
    near = {FLOAT: 1e-5, HALF: 1e-3, INT8: 0.01, FP8: 0.13}[form]
    torch.testing.assert_close(numbers(cache), numbers(pages), rtol=near, atol=step + 1e-6)
    if not (norm or rope):
        assert_same_bytes(cache, pages)


@pytest.mark.parametrize("dtype", [torch.float16] + ([torch.bfloat16] if torch.cuda.is_available() else []))
@pytest.mark.parametrize("head_dim", [64, 80, 128, 256])
def test_half_precision_is_rounded_where_the_reference_rounds(
    device: torch.device, dtype: torch.dtype, head_dim: int
) -> None:
    case = made(2, 1, head_dim, True, True, dtype)

    qkv, cache = placed(case, KVFormat("16 bits", dtype), device)

    wanted, pages = expected(case, KVFormat("16 bits", dtype))
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(qkv[:-1, :2], wanted[:, :2], rtol=2 * step, atol=4 * step)
    torch.testing.assert_close(numbers(cache), numbers(pages), rtol=2 * step, atol=4 * step)
    assert (qkv[:-1, :2] == wanted[:, :2]).float().mean() > 0.99


@FORMATS
def test_rows_of_padding_write_nothing(device: torch.device, form: KVFormat) -> None:
    case = made(2, 1, 16, True, True)

    qkv, cache = placed(case, form, device)

    written = {(3, 0), (3, 1), (3, 2), (3, 3), (1, 0), (1, 1), (1, 2), (0, 3)}
    found = cache.numbers.cpu().view(torch.uint8).flatten(3).any(-1).all(1).nonzero().tolist()
    assert {(block, offset) for block, offset in found} == written
    assert torch.equal(qkv[-1], case.qkv[-1])


@FORMATS
def test_numbers_that_are_not_finite_are_told_by_their_scale(device: torch.device, form: KVFormat) -> None:
    case = made(1, 2, 16, False, False)
    case.qkv[0, 1, 3], case.qkv[0, 2, 0], case.qkv[1, 3, 15], case.qkv[2, 4] = torch.inf, -torch.inf, torch.nan, 0.0
    case.qkv[3, 1:] = 1e-44
    case.qkv[4, 1:] *= 1e-39

    _, cache = placed(case, form, device)

    if form.scaled:
        assert_same_bytes(cache, expected(case, form)[1])
    else:
        torch.testing.assert_close(numbers(cache), numbers(expected(case, form)[1]), equal_nan=True)


@pytest.mark.parametrize("form", [INT8, FP8], ids=lambda form: form.name)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=16, max_size=16),
    steps=st.lists(st.integers(-254, 254), min_size=16, max_size=16),
)
def test_any_numbers_are_quantised_to_the_references_bytes(
    device: torch.device, form: KVFormat, values: list[float], steps: list[int]
) -> None:
    case = made(1, 1, 16, False, False)
    case.qkv[0, 1] = torch.tensor(values)
    case.qkv[1, 1] = torch.tensor(steps) / 2  # halves: to even
    case.qkv[1, 1, 0] = form.largest or 0.0

    _, cache = placed(case, form, device)

    assert_same_bytes(cache, expected(case, form)[1])


@pytest.mark.parametrize("form", [INT8, FP8], ids=lambda form: form.name)
@pytest.mark.parametrize("halves", [1, 3])
def test_scales_between_two_are_rounded_to_the_even_one(device: torch.device, form: KVFormat, halves: int) -> None:
    case = made(1, 1, 16, False, False)
    case.qkv[:, 1:] = (form.largest or 0.0) * (1 + halves / 256)

    _, cache = placed(case, form, device)

    assert_same_bytes(cache, expected(case, form)[1])


@pytest.mark.parametrize("form", [INT8, FP8], ids=lambda form: form.name)
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_between_two_are_rounded_to_the_even_one(device: torch.device, form: KVFormat, sign: int) -> None:
    stored = torch.arange(127, dtype=torch.uint8).view(form.number).float()
    case = made(1, 1, 128, False, False)
    case.qkv[:, 1:, :126] = (stored[1:] + stored[:-1]) / 2 * sign
    case.qkv[:, 1:, 126:] = form.largest or 0.0  # so that the scale is one

    _, cache = placed(case, form, device)

    assert_same_bytes(cache, expected(case, form)[1])
