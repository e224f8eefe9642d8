"""Tensor types of GGUF files: the same numbers as the gguf package has, and groups of 32 that hold them."""

from __future__ import annotations

import gguf
import pytest
import torch

from engine.gguf.dequantise import dequantised
from engine.gguf.types import TENSOR_TYPES, TensorType
from engine.quant.blocks import BlockMatrix, BlockRows, rounded
from tests.engine.gguf_rows import random_rows

QUANTISED = [kind for kind in TENSOR_TYPES.values() if kind.quantised]
ROUNDED = ("Q2_K", "Q3_K", "Q6_K")


@pytest.mark.parametrize("kind", TENSOR_TYPES.values(), ids=lambda kind: kind.name)
def test_sizes_are_those_of_the_gguf_package(kind: TensorType) -> None:
    named = gguf.GGMLQuantizationType(kind.code)

    assert (named.name, *gguf.GGML_QUANT_SIZES[named]) == (kind.name, kind.weights, kind.nbytes)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_weights_are_those_of_the_gguf_package(kind: TensorType, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.gguf.dequantise.MAX_WEIGHTS", 2 * 3 * kind.weights)  # two rows at a time
    raw = random_rows(kind, rows, 3)

    expected = gguf.dequantize(raw.numpy(), gguf.GGMLQuantizationType(kind.code))

    assert torch.equal(dequantised(raw, kind, torch.float32), torch.from_numpy(expected))


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_groups_hold_the_weights(kind: TensorType) -> None:
    matrix = BlockMatrix((BlockRows(kind, random_rows(kind, 7, 2)),))
    exact = matrix.dequantised(torch.float32)

    grouped = matrix.grouped()

    assert grouped.shape == matrix.shape == exact.shape
    assert int(grouped.numbers.max()) < 2**grouped.bits
    assert matrix.exact == (kind.name not in ROUNDED)
    largest = exact.view(-1, 32).abs().amax(-1, keepdim=True).clamp(min=1e-9)  # a scale may be 0
    error = (grouped.dequantised(torch.float32) - exact).view(-1, 32).abs() / largest
    # Half a step of 127, or what float16 loses of a scale and a minimum, which may be larger than the weights.
    assert error.max() < (0.5 / 127 + 1e-3 if kind.name in ROUNDED else 4e-3)


@pytest.mark.parametrize("kind", [kind for kind in QUANTISED if kind.name not in (*ROUNDED, "Q4_K", "Q5_K", "IQ4_XS")])
def test_groups_hold_blocks_of_32_to_the_bit(kind: TensorType) -> None:
    matrix = BlockMatrix((BlockRows(kind, random_rows(kind, 4, 3)),))

    assert torch.equal(matrix.grouped().dequantised(torch.float32), matrix.dequantised(torch.float32))


def test_parts_of_different_types_are_one_matrix() -> None:
    first, second = TENSOR_TYPES[12], TENSOR_TYPES[14]  # Q4_K and Q6_K, as Q4_K_M files mix them
    parts = [BlockRows(first, random_rows(first, 4, 2)), BlockRows(second, random_rows(second, 2, 2))]

    matrix = BlockMatrix.stacked(parts)

    assert (matrix.shape, matrix.bits, matrix.exact) == ((6, 512), 8, False)
    assert matrix.grouped().shape == (6, 512)
    order = torch.tensor([3, 2, 1, 0, 5, 4])
    assert torch.equal(matrix.reordered(order).dequantised(torch.float32), matrix.dequantised(torch.float32)[order])


def test_rows_do_not_leave_their_part() -> None:
    kind = TENSOR_TYPES[8]
    matrix = BlockMatrix.stacked([BlockRows(kind, random_rows(kind, 2, 1)) for _ in range(2)])

    with pytest.raises(ValueError, match="do not change places"):
        matrix.reordered(torch.tensor([2, 1, 0, 3]))


def test_a_scale_that_is_no_number_is_refused() -> None:
    kind = TENSOR_TYPES[3]
    raw = random_rows(kind, 2, 1)
    raw[1, 0:2] = torch.tensor([0, 0x7C], dtype=torch.uint8)  # infinity

    with pytest.raises(ValueError, match="Q4_1 have a scale or minimum that is no finite number"):
        BlockMatrix((BlockRows(kind, raw),)).grouped()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_weights_are_rounded_as_q8_0_is(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.quant.blocks.MAX_WEIGHTS", 2 * 96)  # two rows at a time
    weight = torch.randn(5, 96, generator=torch.Generator().manual_seed(0)).to(dtype)

    found = rounded(weight)

    assert (found.bits, found.shape) == (8, (5, 96))
    raw = gguf.quantize(weight.float().numpy(), gguf.GGMLQuantizationType.Q8_0)
    expected = torch.from_numpy(gguf.dequantize(raw, gguf.GGMLQuantizationType.Q8_0))
    torch.testing.assert_close(
        found.dequantised(torch.float32), expected, rtol=0, atol=float(expected.abs().max()) / 127
    )
    error = (found.dequantised(torch.float32) - weight.float()).view(-1, 32).abs()
    assert (error <= weight.float().view(-1, 32).abs().amax(-1, keepdim=True) * (0.5 / 127 + 1e-3)).all()


def test_plain_weights_that_are_no_numbers_are_not_rounded() -> None:
    with pytest.raises(ValueError, match=r"torch\.float32 have a scale or minimum that is no finite number"):
        rounded(torch.full((1, 32), torch.inf))
