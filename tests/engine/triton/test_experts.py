"""Mixtures of experts in Triton, against those of torch."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.kernels.reference import ReferenceKernels
from engine.kernels.triton.experts import experts_mix, sort_choices
from engine.kernels.triton.linear import Products
from engine.kernels.triton.tiling import Tiling
from engine.model.spec import ExpertSpec
from engine.model.weights import ExpertWeights

DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * torch.cuda.is_available()
SMALL = Tiling(16, 64, 32, 4, 2, group=2)
HIDDEN, INNER = 40, 24
gated = partial(ReferenceKernels().gated, activation="silu")


def made(
    count: int, per_token: int, dtype: torch.dtype, device: torch.device, normalised: bool = True
) -> ExpertWeights:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator) * 0.3).to(dtype).to(device)

    spec = ExpertSpec(count, per_token, INNER, normalised)
    return ExpertWeights(spec, drawn(count, HIDDEN), drawn(count, 2 * INNER, HIDDEN), drawn(count, HIDDEN, INNER))


def tokens(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(1)).to(dtype).to(device)


def assert_mixed(found: Tensor, x: Tensor, weights: ExpertWeights) -> None:
    """As torch has it in the same dtype: roundings between the products are the same, those of the sum are not."""
    wanted = ReferenceKernels().experts(x, weights, "silu")
    eps = torch.finfo(x.dtype).eps
    torch.testing.assert_close(found, wanted, rtol=4 * eps, atol=4 * eps * max(1.0, float(wanted.abs().max())))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("experts", "per_token"), [(6, 3), (1, 1), (17, 2), (4, 4)])
@pytest.mark.parametrize("count", [1, 37])
@pytest.mark.parametrize("normalised", [True, False])
def test_experts_are_those_of_torch(
    device: torch.device, dtype: torch.dtype, experts: int, per_token: int, count: int, normalised: bool
) -> None:
    weights, x = made(experts, per_token, dtype, device, normalised), tokens(count, dtype, device)

    found = experts_mix(x, weights, F.linear(x, weights.router), gated, tile=SMALL)

    assert_mixed(found, x, weights)


@pytest.mark.parametrize("favourite", [0, 5])
def test_all_may_want_the_same_expert(device: torch.device, favourite: int) -> None:
    weights, x = made(6, 1, torch.float32, device), tokens(40, torch.float32, device).abs()
    weights.router[favourite] = 10.0

    found = experts_mix(x, weights, F.linear(x, weights.router), gated, tile=SMALL)

    assert F.linear(x, weights.router).argmax(1).eq(favourite).all()
    assert_mixed(found, x, weights)


def test_no_tokens_are_no_work(device: torch.device) -> None:
    weights = made(6, 3, torch.float32, device)

    assert Products(device, False).experts(tokens(0, torch.float32, device), weights, gated).shape == (0, HIDDEN)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), experts=st.integers(1, 40), count=st.integers(1, 60), block=st.sampled_from([4, 16]))
def test_tiles_have_every_choice_once_and_those_of_one_expert(
    device: torch.device, data: st.DataObject, experts: int, count: int, block: int
) -> None:
    chosen = torch.tensor(data.draw(st.lists(st.integers(0, experts - 1), min_size=count, max_size=count)))

    choices = sort_choices(chosen.view(-1, 1).to(device), experts, block)

    rows: list[int] = []
    for expert, first, end in choices.tiles.tolist():
        own = choices.order[first : min(end, first + block)].tolist()
        assert all(chosen[choice] == expert for choice in own)
        rows += own
    assert sorted(rows) == list(range(count))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tile", [SMALL, None], ids=["small tiles", "usual tiles"])
def test_a_token_has_the_same_bits_alone_and_among_others(
    device: torch.device, dtype: torch.dtype, tile: Tiling | None
) -> None:
    weights, x = made(5, 2, dtype, device), tokens(33, dtype, device)
    scores = F.linear(x.double(), weights.router.double()).to(dtype)
    together = experts_mix(x, weights, scores, gated, fixed=True, tile=tile)

    for first, last in [(0, 1), (4, 23), (32, 33)]:
        alone = experts_mix(x[first:last], weights, scores[first:last], gated, fixed=True, tile=tile)
        assert torch.equal(alone, together[first:last])


def test_nothing_is_asked_of_the_device(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, x = made(6, 3, torch.float32, device), tokens(9, torch.float32, device)

    def refuse(*_: object) -> None:
        raise AssertionError("the host waits for the device")

    for name in ("item", "tolist", "nonzero", "cpu", "__bool__", "__int__"):
        monkeypatch.setattr(Tensor, name, refuse)
    # Triton's interpreter itself asks for numbers, by other means.
    launched: list[tuple[int, ...]] = []
    for kernel in ("tiles_kernel", "grouped_kernel", "weighted_kernel"):
        monkeypatch.setattr(f"engine.kernels.triton.experts.{kernel}", Recorder(launched))

    experts_mix(x, weights, F.linear(x, weights.router), gated, tile=SMALL)

    assert launched == [(27 // 16 + 6,), (7 * 1,), (7 * 1,), (9, 1)]


class Recorder:
    """Stands for a kernel; remembers the grids it was launched with."""

    def __init__(self, launched: list[tuple[int, ...]]) -> None:
        self._launched = launched

    def __getitem__(self, grid: tuple[int, ...]) -> Recorder:
        self._launched.append(grid)
        return self

    def __call__(self, *_: object, **__: object) -> None:
        return None
