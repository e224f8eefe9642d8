"""Keys and values of one byte: what they lose, and what they do not hide."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.kv.format import FP8, INT8, SCALED, KVFormat, KVPages, dequantise, format_of, quantise

HALF_A_STEP = {"int8": 1 / 254, "fp8": 1 / 16}  # of a head's largest number; of a float8, relative to the number


@pytest.mark.parametrize("form", SCALED.values(), ids=SCALED)
@given(seed=st.integers(0, 2**32), size=st.sampled_from([1, 16, 80]), magnitude=st.floats(1e-6, 1e6))
def test_each_number_comes_back_within_half_a_step(form: KVFormat, seed: int, size: int, magnitude: float) -> None:
    x = torch.randn(5, size, generator=torch.Generator().manual_seed(seed)) * magnitude
    numbers, scales = quantise(x, form)

    off = (dequantise(numbers, scales, torch.float32) - x).abs()

    rounded = x.abs().amax(-1, keepdim=True) / 256  # of the scale itself, which is a bfloat16, clamping what exceeds it
    allowed = HALF_A_STEP[form.name] * (x.abs().amax(-1, keepdim=True) if form is INT8 else x.abs())
    smallest = x.abs().amax(-1, keepdim=True) / 448 * 2**-9
    assert (off <= allowed * 1.01 + rounded + smallest).all()


@pytest.mark.parametrize("form", SCALED.values(), ids=SCALED)
def test_nothing_stays_nothing(form: KVFormat) -> None:
    numbers, scales = quantise(torch.zeros(3, 16), form)

    assert not numbers.view(torch.uint8).any()
    assert not scales.any()


@pytest.mark.parametrize("form", SCALED.values(), ids=SCALED)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_comes_back_as_none(form: KVFormat, bad: float) -> None:
    x = torch.ones(2, 16)
    x[1, 3] = bad

    back = dequantise(*quantise(x, form), torch.float32)

    assert back[0].isfinite().all()
    assert not back[1].isfinite().all()


@pytest.mark.parametrize(
    ("name", "dtype", "bytes_per_head"),
    [
        ("auto", torch.float32, 256),
        ("auto", torch.bfloat16, 128),
        ("float32", torch.bfloat16, 256),
        ("int8", torch.bfloat16, 66),
        ("fp8", torch.float32, 66),
    ],
)
def test_a_format_knows_its_bytes(name: str, dtype: torch.dtype, bytes_per_head: int) -> None:
    form = format_of(name, dtype)  # type: ignore[arg-type]
    pages = KVPages.zeros(form, blocks=3, both_heads=4, block_size=16, head_dim=64, device=torch.device("cpu"))

    assert form.head_bytes(64) == bytes_per_head
    assert pages.nbytes == 3 * 4 * 16 * bytes_per_head


@pytest.mark.parametrize("form", [KVFormat("float32", torch.float32), INT8, FP8], ids=lambda form: form.name)
def test_zeroed_blocks_hold_nothing_and_others_all_they_did(form: KVFormat) -> None:
    pages = KVPages.zeros(form, blocks=3, both_heads=2, block_size=16, head_dim=8, device=torch.device("cpu"))
    for part in (pages.numbers, pages.scales):
        if part is not None:
            part.view(torch.uint8).fill_(63)

    pages.fill_zero(torch.tensor([1]))

    for part in (pages.numbers, pages.scales):
        if part is not None:
            held = part.view(torch.uint8).flatten(1).any(1)
            assert held.tolist() == [True, False, True]
