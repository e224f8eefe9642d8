"""Tokens chosen by the kernels are those that plain torch chooses, whatever is cut and however many are equal."""

from __future__ import annotations

import random
from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import HealthCheck, assume, given, settings
from torch import Tensor

from engine.api import SamplingParams
from engine.decode.random import gumbel
from engine.decode.sampling import Draw, draw_fused, draw_plain
from engine.kernels.triton import noise
from engine.kernels.triton.sampling import sample_tokens, settings_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter

CUTS = [
    SamplingParams(temperature=0),
    SamplingParams(),
    SamplingParams(top_k=1),
    SamplingParams(top_k=40),
    SamplingParams(temperature=1e-9),
    SamplingParams(top_p=1e-9),
    SamplingParams(temperature=1.6, top_p=0.9),
    SamplingParams(top_p=0.9999),
    SamplingParams(temperature=1.3, min_p=0.1),
    SamplingParams(temperature=0.7, top_k=300, top_p=0.8, min_p=0.02),
    SamplingParams(temperature=2.0, top_k=60, top_p=0.3, min_p=0.6),
]
SHAPES = {"peaked": (4.0, 0.0), "flat": (0.01, 30.0), "around nothing": (1e-4, 0.0), "far below": (2.0, -500.0)}


def made(rows: int, vocab: int, spread: float = 3.0, middle: float = 0.0, seed: int = 0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread + middle


def draws_of(params: Sequence[SamplingParams], seed: int = 0) -> list[Draw]:
    chance = random.Random(seed)
    return [Draw(each, chance.randrange(-(2**63), 2**63), chance.randrange(100_000)) for each in params]


def fused(logits: Tensor, draws: Sequence[Draw], device: torch.device, rows: Sequence[int] | None = None) -> list[int]:
    given = draw_fused(logits.to(device), draws, range(len(draws)) if rows is None else rows)
    assert given.dtype == torch.int64
    return [int(token) for token in given.cpu()]


def plain(logits: Tensor, draws: Sequence[Draw], rows: Sequence[int] | None = None) -> list[int]:
    return [int(token) for token in draw_plain(logits, draws, range(len(draws)) if rows is None else rows)]


def by_the_book(logits: Tensor, draw: Draw) -> int:
    """The winner among what cuts leave, by sorting; of equal logits those of the lowest ids come first."""
    params, wide = draw.params, logits.double().numpy() / draw.params.temperature
    order = np.argsort(-wide, kind="stable")
    if params.top_k:
        order = order[: params.top_k]
    shares = np.exp(wide[order] - wide.max())
    reached = np.cumsum(shares) / shares.sum()
    if params.top_p < 1:
        assume(np.abs(reached - params.top_p).min() > 1e-5)  # where rounding decides
        order = order[: int((reached < params.top_p).sum()) + 1]
    noisy = logits[order] / params.temperature + gumbel([draw.seed], [draw.position], torch.from_numpy(order)[None])[0]
    return int(order[int(noisy.argmax())])


@pytest.mark.parametrize("vocab", [1, 100, 5000])
@pytest.mark.parametrize("shape", SHAPES)
def test_tokens_are_those_of_plain_torch(device: torch.device, vocab: int, shape: str) -> None:
    draws = draws_of(CUTS, vocab)
    logits = made(len(draws), vocab, *SHAPES[shape])

    assert fused(logits, draws, device) == plain(logits, draws)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    vocab=st.integers(1, 700),
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([0.1, 1.0, 5.0]),
    temperature=st.floats(0.05, 3),
    top_k=st.integers(0, 200),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
)
def test_any_settings_give_the_tokens_of_plain_torch(
    device: torch.device, vocab: int, seed: int, spread: float,
    temperature: float, top_k: int, top_p: float, min_p: float,
) -> None:  # fmt: skip
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    draws = draws_of([params], seed)
    logits = made(1, vocab, spread, seed=seed)

    assert fused(logits, draws, device) == plain(logits, draws)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    levels=st.lists(st.integers(-3, 3), min_size=2, max_size=300),
    seed=st.integers(0, 2**32),
    top_k=st.integers(0, 60),
    top_p=st.sampled_from([1.0, 0.97, 0.613, 0.2]),
)
def test_of_equal_logits_the_lowest_ids_are_kept(
    device: torch.device, levels: list[int], seed: int, top_k: int, top_p: float
) -> None:
    logits = torch.tensor([[float(level) for level in levels]])
    draw = draws_of([SamplingParams(top_k=top_k, top_p=top_p)], seed)[0]

    assert fused(logits, [draw], device) == [by_the_book(logits[0], draw)]


@pytest.mark.parametrize(("top_k", "top_p", "kept"), [(1, 1.0, 1), (64, 1.0, 64), (150, 0.63, 95), (150, 0.999, 150)])
def test_of_all_equal_logits_exactly_the_first_are_kept(
    device: torch.device, top_k: int, top_p: float, kept: int
) -> None:
    draws = [Draw(SamplingParams(top_k=top_k, top_p=top_p), 7, position) for position in range(6)]
    noise_of_all = gumbel([7] * 6, list(range(6)), torch.arange(200).unsqueeze(0))

    found = fused(torch.zeros(1, 200), draws, device, [0] * 6)

    assert found == noise_of_all[:, :kept].argmax(-1).tolist()


def test_ties_beyond_what_is_read_at_a_time_are_counted_on(device: torch.device) -> None:
    logits = torch.zeros(1, 9000)
    logits[0, ::3] = 1.0
    draws = [Draw(SamplingParams(temperature=0.8, top_k=top_k), 1, top_k) for top_k in (2500, 3001)]

    assert fused(logits, draws, device, [0] * 2) == [by_the_book(logits[0], draw) for draw in draws]


@pytest.mark.parametrize("params", CUTS, ids=range(len(CUTS)))
def test_the_only_token_left_is_chosen(device: torch.device, params: SamplingParams) -> None:
    logits = torch.full((3, 300), -torch.inf)
    logits[0, 299], logits[1, 0], logits[2, 130] = -1e30, 4.0, 0.0

    assert fused(logits, draws_of([params] * 3), device) == [299, 0, 130]


@pytest.mark.parametrize("params", CUTS, ids=range(len(CUTS)))
def test_forbidden_tokens_are_never_chosen(device: torch.device, params: SamplingParams) -> None:
    logits = made(6, 200)
    logits[:, torch.arange(200) % 9 != 4] = -torch.inf
    draws = draws_of([params] * 6)

    assert fused(logits, draws, device) == plain(logits, draws)


@pytest.mark.parametrize("params", CUTS, ids=range(len(CUTS)))
@pytest.mark.parametrize("filling", [torch.nan, torch.inf, -torch.inf])
def test_rows_without_a_choice_still_name_a_token(device: torch.device, params: SamplingParams, filling: float) -> None:
    whole, part = torch.full((1, 130), filling), made(1, 130)
    part[0, 3:70] = filling

    assert all(0 <= token < 130 for token in fused(torch.cat((whole, part)), draws_of([params] * 2), device))


def test_the_largest_of_equals_is_the_first(device: torch.device) -> None:
    logits = torch.zeros(2, 5000)
    logits[0, [4100, 90, 2300]] = 1.0
    logits[1, 0] = -0.0

    assert fused(logits, draws_of([SamplingParams(temperature=0)] * 2), device) == [90, 0]


def test_many_may_draw_from_one_row_and_by_any_settings(device: torch.device) -> None:
    logits, rows = made(3, 900), [2, 0, 0, 1, 2, 2, 0, 0]
    typical = [SamplingParams(typical_p=0.4), SamplingParams(top_p=0.9, typical_p=0.8)]
    draws = draws_of([*CUTS[:6], *typical])

    assert fused(logits, draws, device, rows) == plain(logits, draws, rows)


def test_a_row_is_drawn_alike_in_any_batch(device: torch.device) -> None:
    logits, draws = made(len(CUTS), 600), draws_of(CUTS)

    together = fused(logits, draws, device)

    assert together == [fused(logits[row : row + 1], [draw], device)[0] for row, draw in enumerate(draws)]


def test_rows_may_lie_apart(device: torch.device) -> None:
    logits, draws = made(len(CUTS), 640), draws_of(CUTS)

    found = sample_tokens(logits.to(device)[:, :500], settings_of(draws, range(len(draws)), 500).to(device))

    assert found.tolist() == plain(logits[:, :500], draws)


def test_no_draws_are_no_tokens(device: torch.device) -> None:
    assert fused(made(2, 10), [], device) == []


@triton.jit
def _noise_kernel(seeds: tl.tensor, positions: tl.tensor, out: tl.tensor, SIZE: tl.constexpr) -> None:  # noqa: N803
    row = tl.program_id(0)
    tokens = tl.arange(0, SIZE)
    key = noise.noise_key(tl.load(seeds + row), tl.load(positions + row))
    tl.store(out + row * SIZE + tokens, noise.gumbel(key, tokens))


def test_noise_is_that_of_plain_torch(device: torch.device) -> None:
    seeds, positions = [0, -1, 2**63 - 1, -(2**63), 12345], [0, 1, 70_000, 3, 9]
    out = torch.empty(5, 65_536, device=device)

    _noise_kernel[(5,)](
        torch.tensor(seeds, device=device), torch.tensor(positions, dtype=torch.int32, device=device), out, SIZE=65_536
    )

    expected = gumbel(seeds, positions, torch.arange(65_536).unsqueeze(0))
    torch.testing.assert_close(out.cpu(), expected, rtol=3e-7, atol=5e-7)
