"""Looking for the largest logit alone finds the very one, to the bit, and nobody else notices."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3Config

from engine import FinishReason, SamplingParams
from engine.kernels.cpu import packing
from engine.kernels.cpu.packing import error_bounds
from engine.kernels.cpu.screening import MAX_MULTIPLIED_SHARE, PAUSE, Screening
from engine.quant.format import INT8
from engine.quant.quantise import quantise
from engine.sequence import Sequence
from tests.engine.compiled import make_engine
from tests.engine.families import disturb
from tests.engine.models import SHAPE, VOCAB, ragged_prompts, write

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
SHAPES = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 80}


def plain(head: torch.Tensor) -> None:
    """As it is drawn."""


def twins(head: torch.Tensor) -> None:
    """Every output has an equal: the first of two is to be taken."""
    half = len(head) // 2
    head[half : 2 * half] = head[:half]


def outliers(head: torch.Tensor) -> None:
    """One large weight in each output, beside which eight bits hold little of the others."""
    head[:, 3] *= 40


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A model whose output layer was changed."""

    def make(change: Callable[[torch.Tensor], None], vocab: int = VOCAB) -> Path:
        path = tmp_path_factory.mktemp("screened")
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            Qwen3Config(**SHAPE | SHAPES | {"vocab_size": vocab}, tie_word_embeddings=False)
        ).eval()
        disturb(model)
        with torch.no_grad():
            change(model.lm_head.weight)
        write(model, path)
        return path

    return make


@pytest.fixture
def multiplied(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of each screened step the share of the output layer that was multiplied in full."""
    shares: list[float] = []
    took = Screening.took

    def recording(self: Screening, share: float) -> None:
        shares.append(share)
        took(self, share)

    monkeypatch.setattr(Screening, "took", recording)
    return shares


@pytest.fixture
def screened(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From then on even small output layers are screened."""
    return lambda: monkeypatch.setattr(packing, "SCREENED_BYTES", 0)


def tokens_by_torch(path: Path, prompts: list[list[int]], **config: Any) -> list[tuple[int, ...]]:
    """Greedy answers, of which torch finds each token among all logits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sequence, "takes_largest", property(lambda _: False))
        return tokens_told(path, prompts, **config)


def tokens_told(path: Path, prompts: list[list[int]], **config: Any) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in make_engine(path, **config).generate(prompts, GREEDY)]


@pytest.mark.parametrize("threads", [1, 3, 7])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("vocab", [VOCAB, 507])  # 507: the last panel is not full
@pytest.mark.parametrize("change", [plain, twins, outliers])
def test_the_largest_logit_is_the_very_one(
    directory: Callable[..., Path],
    multiplied: list[float],
    screened: Callable[[], None],
    change: Callable[[torch.Tensor], None],
    vocab: int,
    dtype: str,
    threads: int,
) -> None:
    path, prompts = directory(change, vocab), ragged_prompts(vocab)
    expected = tokens_by_torch(path, prompts, dtype=dtype)

    assert tokens_told(path, prompts, dtype=dtype, threads=threads) == expected
    assert not multiplied
    screened()
    assert tokens_told(path, prompts, dtype=dtype, threads=threads) == expected
    assert 0 < sum(multiplied) < len(multiplied)  # some panels of the output layer were left out


@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v4"])
def test_lesser_processors_find_it_too(
    directory: Callable[..., Path],
    screened: Callable[[], None],
    lesser_library: Callable[[str], ctypes.CDLL],
    monkeypatch: pytest.MonkeyPatch,
    level: str,
) -> None:
    library = lesser_library(f"-march={level}")
    monkeypatch.setattr("engine.kernels.cpu.runner.loaded", lambda: library)
    path, prompts = directory(plain), ragged_prompts(VOCAB)
    expected = make_engine(path, dtype="bfloat16").generate(prompts, GREEDY)
    screened()

    answers = make_engine(path, dtype="bfloat16").generate(prompts, GREEDY)

    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]


@pytest.mark.parametrize(
    "wish",
    [
        {"temperature": 1.0, "seed": 3},
        {"temperature": 0, "logprobs": 2},
        {"temperature": 0, "repetition_penalty": 1.3},
        {"temperature": 0, "prompt_logprobs": 1},
        {"n": 2, "temperature": 0},
    ],
    ids=lambda wish: max(wish, key=len) if "n" not in wish else "choices",
)
def test_who_needs_more_than_the_largest_gets_all(
    directory: Callable[..., Path], multiplied: list[float], screened: Callable[[], None], wish: dict[str, Any]
) -> None:
    """And so does whoever shares the step."""
    screened()
    params = [SamplingParams(max_tokens=1, **wish), SamplingParams(temperature=0, max_tokens=1)]

    answers = make_engine(directory(plain)).generate([[5, 6, 7], [8, 9]], params)

    assert not multiplied
    assert {answer.finish_reason for answer in answers} == {FinishReason.LENGTH}


def spoil_stream(weights: dict[str, torch.Tensor]) -> None:
    """Whoever reads token 5 has no numbers from then on."""
    weights["model.embed_tokens.weight"][5] = torch.inf


def spoil_logit(weights: dict[str, torch.Tensor]) -> None:
    """Whoever reads token 5 has numbers up to the output layer, one of whose products overflows."""
    weights["model.embed_tokens.weight"][5, 0] = 1e4
    weights["model.norm.weight"][0] = 1
    weights["lm_head.weight"][7, 0] = 6e37


@pytest.mark.parametrize("spoil", [spoil_stream, spoil_logit])
@pytest.mark.parametrize("screens", [True, False])
def test_a_row_without_finite_numbers_fails_alone(
    directory: Callable[..., Path],
    screened: Callable[[], None],
    spoil: Callable[[dict[str, torch.Tensor]], None],
    screens: bool,
) -> None:
    path = directory(plain)
    weights = load_file(path / "model.safetensors")
    spoil(weights)
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    expected = tokens_by_torch(path, [[8, 9]])
    if screens:
        screened()

    sound, unsound = make_engine(path).generate([[8, 9], [6, 5]], GREEDY)

    assert sound.token_ids == expected[0]
    assert sound.finish_reason is FinishReason.LENGTH
    assert unsound.finish_reason is FinishReason.ERROR
    assert not unsound.token_ids


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([32, 96, 320]), st.sampled_from([0.0, 1.0, 30.0]))
def test_bounds_hold(seed: int, inputs: int, spread: float) -> None:
    """For what eight bits make of weights and inputs, in float64."""
    torch.manual_seed(seed)
    weight = torch.randn(48, inputs) * (1 + spread * torch.rand(inputs) ** 8)
    x = torch.randn(inputs) * (1 + spread * torch.rand(inputs) ** 8)
    matrix = quantise(weight, INT8)
    scale = x.view(-1, 32).abs().amax(-1, keepdim=True) / 127
    y = (x.view(-1, 32) / scale).round_().mul_(scale).flatten()

    errors, sizes = error_bounds(weight, matrix)

    rough = matrix.dequantised(torch.float64) @ y.double()
    off = (weight.double() @ x.double() - rough).abs()
    bound = errors.double() * x.double().norm() + sizes.double() * (x.double() - y.double()).norm()
    assert bool((off <= bound).all())


def test_screening_pauses_where_it_does_not_pay() -> None:
    screening = Screening(panels=100)
    steps = 0
    while screening.asked(rows=1) and steps < 1000:
        assert not screening.asked(rows=0)
        screening.took(2 * MAX_MULTIPLIED_SHARE)
        steps += 1
    paused = 1
    while not screening.asked(rows=1):
        paused += 1

    assert steps < 20
    assert paused == PAUSE
    assert not Screening(panels=0).asked(rows=1)
