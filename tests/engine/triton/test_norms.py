"""The norms in Triton are the reference's, to the last bit of a rounded result or nearly so."""

from __future__ import annotations

import pytest
import torch

from engine.kernels.reference import ReferenceKernels
from engine.kernels.triton import norms

EPS = 1e-5
ORACLE = ReferenceKernels()
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if torch.cuda.is_available() else [])
SIZES = [1, 8, 40, 128, 1000, 4096]


def made(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    """One step of the dtype apart, at most: the sum of squares is taken in another order."""
    step = torch.finfo(expected.dtype).eps
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found.cpu(), expected, rtol=2 * step, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wide", [False, True], ids=["weight of x's dtype", "float32 weight"])
def test_norm_is_the_references(device: torch.device, size: int, dtype: torch.dtype, wide: bool) -> None:
    x = made(3, size, dtype=dtype) * 3
    weight = made(size, dtype=torch.float32 if wide else dtype, seed=1)

    found = norms.rms_norm(x.to(device), weight.to(device), EPS)

    assert_near(found, ORACLE.rms_norm(x, weight, EPS))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sum_and_its_norm_are_the_references(device: torch.device, size: int, dtype: torch.dtype) -> None:
    stream, update = (made(3, size, dtype=dtype, seed=seed) for seed in range(2))
    weight = made(size, dtype=dtype, seed=2)
    sum_here = stream.to(device).clone()

    found = norms.add_rms_norm(sum_here, update.to(device), weight.to(device), EPS)

    expected = ORACLE.add_rms_norm(stream, update, weight, EPS)
    assert_near(found, expected)
    torch.testing.assert_close(sum_here.cpu(), stream, rtol=0, atol=0)


def test_rows_wider_than_a_program_holds_are_read_in_parts(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norms, "_WIDEST", 64)
    stream, update, weight = made(2, 200), made(2, 200, seed=1), made(200, seed=2)
    sum_here = stream.to(device).clone()

    found = norms.add_rms_norm(sum_here, update.to(device), weight.to(device), EPS)

    assert_near(found, ORACLE.add_rms_norm(stream, update, weight, EPS))
    torch.testing.assert_close(sum_here.cpu(), stream, rtol=0, atol=0)


def test_rows_of_a_part_of_a_tensor_are_found(device: torch.device) -> None:
    qkv, weight = made(4, 3, 32), made(64, seed=1)
    part = qkv.to(device)[:, 1:].flatten(1)

    assert_near(norms.rms_norm(part, weight.to(device), EPS), ORACLE.rms_norm(qkv[:, 1:].flatten(1), weight, EPS))


def test_small_rows_are_lifted_by_no_more_than_eps_allows(device: torch.device) -> None:
    x, weight = torch.full((1, 16), 1e-4), torch.ones(16)

    found = norms.rms_norm(x.to(device), weight.to(device), 1e-6)

    torch.testing.assert_close(found.cpu(), x / (1e-8 + 1e-6) ** 0.5)


def test_no_rows_are_no_work(device: torch.device) -> None:
    assert norms.rms_norm(torch.empty(0, 8, device=device), torch.ones(8, device=device), EPS).shape == (0, 8)


def test_what_is_no_number_stays_in_its_row(device: torch.device) -> None:
    x = made(3, 16)
    x[1, 3] = torch.nan

    found = norms.rms_norm(x.to(device), torch.ones(16, device=device), EPS).cpu()

    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()
