"""Every family's logits and greedy answers are transformers' own, however the work is cut, cached and interrupted.

The oracle reads prompt and answer in one pass, without a cache: if its likeliest token after each prefix is the one the
engine took, its own greedy answer is the engine's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from engine import Engine, SamplingParams
from engine.kv.shape import windows_of
from engine.model.configuration import read_spec
from engine.runner import Runner
from tests.engine.families import CONFIGS, SETTINGS, Oracle, Recorded, record
from tests.engine.models import VOCAB, ragged_prompts

pytestmark = pytest.mark.usefixtures("clear_choices")

GREEDY = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
MODES: dict[str, dict[str, Any]] = {
    "uncached": {"prefix_caching": False},
    "cached": {"prefix_caching": True},
    "preempted": {"prefix_caching": False, "kv_cache_tokens": 416},
}


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Oracle]:
    """The model of that name, saved, and transformers' logits for it, computed once."""

    @cache
    def make(name: str) -> Oracle:
        return Oracle(name, tmp_path_factory.mktemp("families") / name)

    return make


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return record(monkeypatch, Runner)


def make_engine(name: str, oracle: Oracle, **config: Any) -> Engine:
    return Engine.from_pretrained(
        oracle.directory, **{"kv_cache_tokens": 4096, "kernels": "torch", **config, **SETTINGS.get(name, {})}
    )


def is_windowed(oracle: Oracle) -> bool:
    return windows_of(read_spec(oracle.directory))[0] is not None


def check(oracle: Oracle, prompts: list[list[int]], answers: list[tuple[int, ...]], recorded: Recorded) -> None:
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        expected = oracle.logits((*prompt, *answer))[len(prompt) - 1 : -1]
        found = torch.stack([recorded[str(number), len(prompt) + n] for n in range(len(answer))])

        assert answer == tuple(expected.argmax(-1).tolist())
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_ragged_batch(oracle: Callable[[str], Oracle], recorded: Recorded, name: str, chunk: int, mode: str) -> None:
    model, prompts = oracle(name), ragged_prompts(VOCAB)
    engine = make_engine(name, model, prefill_chunk=chunk, **MODES[mode])

    rounds = 2 if mode == "cached" else 1  # the second from the prefix cache
    for _ in range(rounds):
        recorded.clear()
        answers = [answer.token_ids for answer in engine.generate(prompts, GREEDY)]

        check(model, prompts, answers, recorded)

    assert (engine.stats().cached_tokens > 0) == (mode == "cached")
    again = engine.stats().prompt_tokens > rounds * sum(map(len, prompts))
    scarce = mode == "preempted"
    assert again == scarce or (scarce and is_windowed(model))  # what a window needs may not run out
    engine.check_integrity()


@pytest.mark.parametrize("name", CONFIGS)
def test_alone(oracle: Callable[[str], Oracle], recorded: Recorded, name: str) -> None:
    model = oracle(name)
    engine = make_engine(name, model)

    for prompt in (ragged_prompts(VOCAB)[n] for n in (0, 5)):
        check(model, [prompt], [engine.generate([prompt], GREEDY)[0].token_ids], recorded)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_16_bit_logits_are_close(
    oracle: Callable[[str], Oracle], recorded: Recorded, name: str, dtype: torch.dtype
) -> None:
    model, prompts = oracle(name), ragged_prompts(VOCAB)[5:]
    engine = make_engine(name, model, dtype=str(dtype).removeprefix("torch."))
    engine.generate(prompts, SamplingParams(temperature=0, max_tokens=1))

    for number, prompt in enumerate(prompts):
        found, expected = recorded[str(number), len(prompt)], model.logits(tuple(prompt))[-1]

        assert torch.cosine_similarity(found, expected, 0) > 0.99
