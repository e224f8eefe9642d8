"""Products of matrices in Triton: right, and the same for a row whoever shares the batch."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.kernels.triton.linear import Products
from engine.kernels.triton.matmul import matmul, new_arrivals, parts_of
from engine.kernels.triton.streamed import streamed_matmul
from engine.kernels.triton.tiling import DEFAULT, FIXED_STEP, TABLES, Tiling, streamed_tiling, tiling
from engine.kernels.triton.vector import vector_matmul

DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * torch.cuda.is_available()
SMALL = Tiling(16, 64, 32, 4, 2, programs=4, group=2)
TALL = Tiling(64, 64, 32, 4, 2, programs=4, group=2)


def drawn(*shape: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def assert_product(found: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """As in float64, but for a sum in float32 and one rounding."""
    wanted = x.double() @ weight.double().t()
    size = float((x.double().abs() @ weight.double().abs().t()).max())
    if bias is not None:
        wanted += bias.double()
    torch.testing.assert_close(found.double(), wanted, rtol=torch.finfo(found.dtype).eps, atol=size * 1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("biased", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("shape", [(1, 96, 70), (5, 64, 64), (33, 100, 48), (200, 32, 130)], ids=str)
def test_a_product_is_that_of_float64(
    device: torch.device, dtype: torch.dtype, biased: bool, shape: tuple[int, int, int]
) -> None:
    rows, inputs, outputs = shape
    x = drawn(rows, inputs, dtype=dtype, device=device)
    weight = drawn(outputs, inputs, dtype=dtype, device=device, seed=1)
    bias = drawn(outputs, dtype=dtype, device=device, seed=2) if biased else None

    found = matmul(x, weight, bias, new_arrivals(device), tile=TALL if rows > 100 else SMALL)

    assert found.dtype == dtype
    assert_product(found, x, weight, bias)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(0, 70),
    inputs=st.integers(1, 200),
    outputs=st.integers(1, 150),
    programs=st.integers(1, 24),
    group=st.integers(1, 5),
    fixed=st.booleans(),
)
def test_any_shape_may_be_cut_in_any_way(
    device: torch.device, rows: int, inputs: int, outputs: int, programs: int, group: int, fixed: bool
) -> None:
    x = drawn(rows, inputs, dtype=torch.float32, device=device)
    weight = drawn(outputs, inputs, dtype=torch.float32, device=device, seed=1)
    arrivals = new_arrivals(device)

    found = matmul(x, weight, None, arrivals, tile=Tiling(16, 32, 16, 4, 2, programs, group))

    assert found.shape == (rows, outputs)
    if rows:
        assert_product(found, x, weight, None)
    assert not arrivals.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tile", [SMALL, None], ids=["small tiles", "usual tiles"])
def test_a_row_has_the_same_bits_alone_and_among_others(
    device: torch.device, dtype: torch.dtype, tile: Tiling | None
) -> None:
    x = drawn(200 if device.type == "cuda" else 40, 300, dtype=dtype, device=device)
    weight = drawn(70, 300, dtype=dtype, device=device, seed=1)
    arrivals = new_arrivals(device)
    together = matmul(x, weight, None, arrivals, tile=tile)

    for first, last in [(0, 1), (7, 8), (3, 20), (39, 40)]:
        assert torch.equal(matmul(x[first:last], weight, None, arrivals, tile=tile), together[first:last])


def test_parts_have_programs_of_their_own_only_where_rows_are_few() -> None:
    """What the test above compares are two ways through the kernel."""
    assert parts_of(2, 10, SMALL) == 2
    assert 1 * 2 <= SMALL.programs < 3 * 2


def test_rows_may_lie_apart(device: torch.device) -> None:
    x = drawn(9, 200, dtype=torch.float32, device=device)[:, 32:96]
    weight = drawn(40, 64, dtype=torch.float32, device=device, seed=1)

    assert_product(matmul(x, weight, None, new_arrivals(device), tile=SMALL), x, weight, None)


def test_what_is_no_number_stays_in_its_row(device: torch.device) -> None:
    x = drawn(20, 64, dtype=torch.float32, device=device)
    x[3, 5] = torch.nan

    found = matmul(x, drawn(40, 64, dtype=torch.float32, device=device), None, new_arrivals(device), tile=SMALL)

    assert found.isfinite().all(1).tolist() == [row != 3 for row in range(20)]


@pytest.mark.parametrize("deterministic", [False, True])
def test_an_engine_multiplies_columns_that_are_strided(device: torch.device, deterministic: bool) -> None:
    x = drawn(64, 9, dtype=torch.float32, device=device).t()
    weight = drawn(40, 64, dtype=torch.float32, device=device, seed=1)

    assert_product(Products(device, deterministic).linear(x, weight, None), x, weight, None)


@pytest.mark.parametrize("table", [DEFAULT, *TABLES.values()])
def test_tables_are_in_order_of_rows_and_match_those_they_serve(
    table: dict[str, tuple[tuple[int, Tiling], ...]],
) -> None:
    for kind, entries in table.items():
        assert [most for most, _ in entries] == sorted({most for most, _ in entries})
        assert all(tile.inputs % 32 == 0 for _, tile in entries if kind in ("int8", "int4"))


def test_a_fixed_tiling_does_not_depend_on_the_rows(device: torch.device) -> None:
    assert len({tiling("int4", rows, device, fixed=True) for rows in (1, 16, 17, 100, 5000)}) == 1
    assert tiling("int4", 16, device) != tiling("int4", 17, device) != tiling("int4", 100, device)


@pytest.mark.parametrize("biased", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("shape", [(1, 64, 130), (5, 96, 64), (70, 40, 48), (130, 200, 100)], ids=str)
def test_a_streamed_product_is_that_of_float64(device: torch.device, biased: bool, shape: tuple[int, int, int]) -> None:
    rows, inputs, outputs = shape
    x = drawn(rows, inputs, dtype=DTYPES[-1], device=device)
    weight = drawn(outputs, inputs, dtype=DTYPES[-1], device=device, seed=1)
    bias = drawn(outputs, dtype=DTYPES[-1], device=device, seed=2) if biased else None

    found = streamed_matmul(x, weight, bias, tile=Tiling(64, 64, 32, 4, 2))

    assert found.dtype == x.dtype
    assert_product(found, x, weight, bias)


def test_a_streamed_product_has_the_bits_of_any_other_of_fixed_order(device: torch.device) -> None:
    """The interpreter rounds after each step of a tile, where a card does after 16 inputs: there tiles differ too."""
    card = device.type == "cuda"
    tiles = [None] if card else [Tiling(rows, 64, 64, 4, 2) for rows in (16, 64, 128)]
    x = drawn(300 if card else 130, 512, dtype=DTYPES[-1], device=device)
    weight = drawn(8192 if card else 200, 512, dtype=DTYPES[-1], device=device, seed=1)
    together = streamed_matmul(x, weight, None, tile=tiles[-1])

    for rows, tile in product((1, 17, 65, 130), tiles):
        assert torch.equal(streamed_matmul(x[:rows], weight, None, tile=tile), together[:rows])
    by_pointers = matmul(x[:20], weight, None, new_arrivals(device), tile=Tiling(16, 64, 64, 4, 2))
    assert torch.equal(by_pointers, together[:20])


@pytest.mark.parametrize(
    ("rows", "count", "tile"),
    [
        (1, 4096, (16, 64)),
        (64, 4096, (64, 64)),
        (256, 4096, (128, 64)),
        (256, 28672, (256, 128)),
        (1024, 6144, (128, 128)),
    ],
)
def test_a_streamed_product_leaves_few_multiprocessors_without_work(
    rows: int, count: int, tile: tuple[int, int]
) -> None:
    """What was quickest on an H200."""
    found = streamed_tiling(rows, count, 132)

    assert (found.rows, found.outputs) == tile


@given(rows=st.integers(1, 9000), count=st.integers(1, 200_000), multiprocessors=st.integers(1, 200))
def test_tiles_of_any_streamed_product_hold_its_rows_if_they_are_few(
    rows: int, count: int, multiprocessors: int
) -> None:
    tile = streamed_tiling(rows, count, multiprocessors)

    assert rows > 64 or tile.rows >= rows
    assert FIXED_STEP % tile.inputs == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), [(300, 70), (1024, 64), (4096, 130)])
def test_the_product_of_one_row_is_that_of_float64(
    device: torch.device, dtype: torch.dtype, inputs: int, outputs: int
) -> None:
    x = drawn(1, inputs, dtype=dtype, device=device)
    weight = drawn(outputs, inputs, dtype=dtype, device=device, seed=1)
    bias = drawn(outputs, dtype=dtype, device=device, seed=2)

    found = vector_matmul(x, weight, bias)

    assert_product(found, x, weight, bias)


def test_more_programs_than_counters_are_refused() -> None:
    with pytest.raises(ValueError, match="programs"):
        Tiling(16, 64, 32, 4, 2, programs=5000)
