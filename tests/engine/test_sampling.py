"""The sampler draws from the distribution it says, and each row by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from engine.api import RequestError, SamplingParams
from engine.decode.sampling import Draw, sample

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, 1.5, -3.0, 0.2])


def drawn(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    tokens = [token for token in sample(logits, draws) if isinstance(token, int)]
    assert len(tokens) == len(draws)
    return tokens


def exact(params: SamplingParams) -> np.ndarray:
    """The distribution by the book, in numpy."""
    probabilities = np.exp(LOGITS.numpy().astype(np.float64) / params.temperature)
    order = np.argsort(-probabilities)
    if params.top_k > 0:
        probabilities[order[params.top_k :]] = 0
    probabilities /= probabilities.sum()
    before = np.cumsum(probabilities[order]) - probabilities[order]
    probabilities[order[before >= params.top_p]] = 0
    probabilities /= probabilities.sum()
    probabilities[probabilities < params.min_p * probabilities.max()] = 0
    probabilities /= probabilities.sum()
    if params.typical_p < 1:
        surprise = -np.log(np.maximum(probabilities, 1e-300))
        order = np.argsort(np.abs(surprise - (probabilities * surprise).sum()))
        before = np.cumsum(probabilities[order]) - probabilities[order]
        probabilities[order[before >= params.typical_p]] = 0
    return np.asarray(probabilities / probabilities.sum())


KINDS = [
    SamplingParams(),
    SamplingParams(temperature=0.7),
    SamplingParams(top_k=3),
    SamplingParams(temperature=1.5, top_p=0.8),
    SamplingParams(top_k=5, top_p=0.7),
    SamplingParams(temperature=2.0, min_p=0.2),
    SamplingParams(typical_p=0.7),
    SamplingParams(temperature=1.3, top_k=6, top_p=0.95, min_p=0.05, typical_p=0.9),
]
"""Temperature, each cut, and all of them."""
MANY = 200_000


def fit(draw_all: Callable[[Tensor, Sequence[Draw]], list[int]], params: SamplingParams) -> float:
    """How probable it is that many draws differ from the exact distribution as much as they do; 0 if any is a token
    that has no probability."""
    chosen = draw_all(LOGITS.repeat(MANY, 1), [Draw(params, 3, position) for position in range(MANY)])
    expected, observed = exact(params) * MANY, np.bincount(chosen, minlength=len(LOGITS))
    possible = expected > 0
    if observed[~possible].any():
        return 0.0
    return float(stats.chisquare(observed[possible], expected[possible]).pvalue)


@pytest.mark.parametrize("params", KINDS, ids=range(len(KINDS)))
def test_frequencies_match_the_exact_distribution(params: SamplingParams) -> None:
    assert fit(drawn, params) > 1e-3


@pytest.mark.parametrize("params", KINDS, ids=range(len(KINDS)))
def test_a_sampler_that_is_a_little_wrong_does_not_pass(params: SamplingParams) -> None:
    def wrong(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
        return drawn(
            logits, [replace(draw, params=replace(params, temperature=params.temperature * 1.05)) for draw in draws]
        )

    assert fit(wrong, params) < 1e-3


@pytest.mark.parametrize(("top_k", "top_p"), [(700, 1.0), (0, 0.9), (800, 0.5), (500, 0.3)])
def test_sets_of_many_tokens_are_kept_whole(top_k: int, top_p: float) -> None:
    params = SamplingParams(top_k=top_k, top_p=top_p)
    flat = torch.linspace(0, -0.001, 1000)
    chosen = drawn(flat.repeat(8_000, 1), [Draw(params, 1, position) for position in range(8_000)])
    kept = round((top_k or 1000) * top_p)

    assert abs(len(set(chosen)) - kept) <= 2
    assert max(chosen) <= kept + 1


def test_seeds_are_independent() -> None:
    params = SamplingParams()
    pairs = drawn(LOGITS.repeat(20_000, 1), [Draw(params, n // 2 * 2 + n % 2, 0) for n in range(20_000)])
    table = np.histogram2d(pairs[::2], pairs[1::2], bins=[np.arange(9), np.arange(9)])[0][:6, :6]

    assert stats.chi2_contingency(table + 1).pvalue > 1e-3


def test_a_row_is_drawn_alike_in_any_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(32, 1000, generator=generator)
    kinds = [
        SamplingParams(temperature=0),
        SamplingParams(),
        SamplingParams(top_k=10),
        SamplingParams(temperature=0.5, top_p=0.9),
    ]
    draws = [Draw(kinds[row % 4], seed=row, position=row * 3) for row in range(32)]

    together = drawn(logits, draws)

    assert together == [drawn(logits[row : row + 1], [draws[row]])[0] for row in range(32)]


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0),
        SamplingParams(top_k=1),
        SamplingParams(top_p=1e-9),
        SamplingParams(temperature=1e-9),
    ],
)
def test_narrowest_settings_are_greedy(params: SamplingParams) -> None:
    assert drawn(LOGITS.repeat(50, 1), [Draw(params, seed, 0) for seed in range(50)]) == [0] * 50


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**63 - 1])
def test_any_64_bit_seed_works(seed: int) -> None:
    assert 0 <= drawn(LOGITS.unsqueeze(0), [Draw(SamplingParams(), seed, 0)])[0] < len(LOGITS)


@pytest.mark.parametrize(
    "field", [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_k": -2}, {"max_tokens": -1}]
)
def test_values_out_of_range_are_refused_by_name(field: dict[str, float]) -> None:
    with pytest.raises(RequestError) as refusal:
        SamplingParams(**field)  # type: ignore[arg-type]

    assert refusal.value.param == next(iter(field))


def test_a_row_without_a_finite_largest_has_no_token() -> None:
    logits = LOGITS.repeat(4, 1)
    logits[0, 3], logits[1, 2] = float("nan"), float("inf")
    logits[2] = -float("inf")

    tokens = sample(logits, [Draw(SamplingParams(temperature=0), 0, 0)] * 4)

    assert all(isinstance(token, FloatingPointError) for token in tokens[:3])
    assert tokens[3] == int(LOGITS.argmax())
