"""An engine that was warmed up is as one that has computed nothing, but knows what a step costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine import Engine
from engine.api import EngineDeadError, EngineError, GenerationRequest, SamplingParams
from engine.config import EngineConfig
from engine.kernels.reference import ReferenceKernels
from engine.model.decoder import Decoder
from engine.model.source import open_model
from engine.tokenizer import Tokenizer
from engine.warm_up import OUTPUT_TOKENS, TOGETHER, warm_up, warm_up_prompts
from tests.engine.conftest import MakeEngine
from tests.engine.families import CONFIGS
from tests.engine.models import write

PROMPTS = ["The quick brown fox", "a", "one two three four five six seven eight nine ten"]
ENGINES: list[tuple[str, dict[str, Any]]] = [
    ("llama-tied", {}),
    ("llama-tied", {"max_sequences": 1, "kv_cache_tokens": 64}),
    ("llama-tied", {"prefill_chunk": 16, "max_batch_tokens": 32, "max_sequences": 8}),
    ("llama-tied", {"speculative_tokens": 4}),
    ("llama-tied", {"prefix_caching": False, "weight_dtype": "int8", "kv_dtype": "int8"}),
    ("qwen3", {"reserve_answers": True}),
]


def answers(engine: Engine) -> list[tuple[int, ...]]:
    settings = [SamplingParams(max_tokens=12, temperature=0.0), SamplingParams(max_tokens=12, seed=5)]
    return [one.token_ids for each in settings for one in engine.generate(PROMPTS, each)]


@pytest.mark.parametrize(("name", "config"), ENGINES)
def test_a_warm_engine_answers_as_a_cold_one(make_engine: MakeEngine, name: str, config: dict[str, Any]) -> None:
    cold, warm = make_engine(name, **config), make_engine(name, **config)

    warm_up(warm)

    assert answers(warm) == answers(cold)


@pytest.mark.parametrize(("name", "config"), ENGINES)
def test_nothing_of_it_is_counted_or_kept(make_engine: MakeEngine, name: str, config: dict[str, Any]) -> None:
    cold, warm = make_engine(name, **config), make_engine(name, **config)

    warm_up(warm)

    assert replace(warm.metrics(), kernels={}) == replace(cold.metrics(), kernels={})
    assert warm.stats() == cold.stats()
    assert warm.stats().blocks_used == warm.stats().blocks_cached == 0
    assert warm.load().classes == cold.load().classes
    warm.check_integrity()


@pytest.mark.parametrize(("name", "config"), ENGINES)
def test_what_a_step_costs_is_known_before_the_first_request(
    make_engine: MakeEngine, name: str, config: dict[str, Any]
) -> None:
    engine = make_engine(name, **config)
    assert engine.load().step_s == engine.load().prompt_token_s == 0

    warm_up(engine)

    assert engine.load().step_s + engine.load().prompt_token_s > 0


def test_the_autoscaler_learns_of_requests_alone(make_engine: MakeEngine) -> None:
    engine = make_engine()

    warm_up(engine)

    assert engine.load().prefill_tokens_per_s == engine.load().decode_step_s == 0


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3"])
@pytest.mark.parametrize("config", [{}, {"max_sequences": 1, "kv_cache_tokens": 256}])
def test_models_with_windows_are_warmed_up_too(tmp_path: Path, name: str, config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    write(AutoModelForCausalLM.from_config(CONFIGS[name]), tmp_path)
    cold, warm = (Engine.from_pretrained(tmp_path, **{"kv_cache_tokens": 4096, **config}) for _ in range(2))

    warm_up(warm)

    assert warm.stats() == cold.stats()
    assert warm.load().step_s + warm.load().prompt_token_s > 0
    assert answers(warm) == answers(cold)
    warm.check_integrity()


def test_a_draft_model_is_warmed_up_too(make_engine: MakeEngine, model_path: Callable[[str], Path]) -> None:
    config = {"speculative_tokens": 4, "speculative_rows": 64, "draft_model": str(model_path("llama-wide"))}
    cold, warm = make_engine("llama-tied", **config), make_engine("llama-tied", **config)

    warm_up(warm)

    assert warm.stats() == cold.stats()
    assert answers(warm) == answers(cold)


class StepClock:
    """A clock that a model's steps advance: the first ones, with which compilers run, by 30 s, all others by 0.01."""

    def __init__(self, engine: Engine) -> None:
        self.now_s, self.steps, self.step_s = 0.0, 0, 0.01
        self._run = engine._runner.run
        engine._clock = lambda: self.now_s
        engine.reset_counts()  # so that everything reads this clock
        engine._runner.run = self.run  # type: ignore[method-assign]

    def run(self, *given: Any, **named: Any) -> Any:
        self.steps += 1
        self.now_s += 30.0 if self.steps < 5 else self.step_s
        return self._run(*given, **named)


def test_what_compilers_took_is_not_in_the_costs(make_engine: MakeEngine) -> None:
    engine = make_engine()
    clock = StepClock(engine)

    warm_up(engine)

    assert clock.steps > 5
    assert engine.load().step_s == pytest.approx(0.01, rel=0.01)


def test_the_first_requests_correct_what_a_busy_machine_has_taught(make_engine: MakeEngine) -> None:
    engine = make_engine()
    clock = StepClock(engine)
    clock.step_s = 0.1
    warm_up(engine)
    clock.step_s = 0.01

    engine.generate(PROMPTS, SamplingParams(max_tokens=8, ignore_eos=True))

    assert engine.load().step_s < 0.03


def test_a_rank_that_died_is_the_error(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()

    def died(*_: object) -> None:
        raise EngineDeadError("rank 1 has died")

    monkeypatch.setattr(engine._runner, "run", died)
    monkeypatch.setattr(engine._runner, "check_health", died)

    with pytest.raises(EngineDeadError, match="rank 1 has died"):
        warm_up(engine)


def with_nan(path: Path, tokens: slice) -> Engine:
    """An engine over the model in ``path``, whose embeddings of ``tokens`` are no numbers."""
    model = Decoder.load(open_model(path), torch.float32, torch.device("cpu"), ReferenceKernels())
    model.weights.embedding[tokens] = torch.nan
    config = EngineConfig(model=str(path), kernels="torch", kv_cache_tokens=1024)
    return Engine(config, model, Tokenizer.from_directory(path))


def test_a_model_that_cannot_compute_does_not_become_ready(model_path: Callable[[str], Path]) -> None:
    with pytest.raises(EngineDeadError, match=r"cannot compute: .*FloatingPointError"):
        warm_up(with_nan(model_path("llama-untied"), slice(None)))


def test_a_model_with_one_broken_token_becomes_ready(model_path: Callable[[str], Path]) -> None:
    engine = with_nan(model_path("llama-untied"), slice(8, 9))

    warm_up(engine)

    assert [len(answer) for answer in answers(engine)] == [12] * 6
    assert engine.stats().failed == 0


@pytest.mark.parametrize(("context", "cache"), [(8_192, 100_000), (64, 512), (16, 64), (10, 32)])
def test_the_prompts_fit_the_context_and_half_the_cache(make_engine: MakeEngine, context: int, cache: int) -> None:
    config = make_engine().config

    groups = warm_up_prompts(config, context, 100, cache)

    assert groups
    for group in groups:
        assert sum(len(prompt) + OUTPUT_TOKENS for prompt in group) <= cache // 2
        assert max(map(len, group)) + OUTPUT_TOKENS <= context
        assert len(group) <= min(TOGETHER, config.max_sequences)
        assert all(0 <= token < 100 for prompt in group for token in prompt)


@pytest.mark.parametrize(("context", "cache"), [(8, 1_000), (100, 16), (1, 1)])
def test_where_no_prompt_fits_there_is_none(make_engine: MakeEngine, context: int, cache: int) -> None:
    assert not warm_up_prompts(make_engine().config, context, 100, cache)


def test_an_engine_at_work_is_not_reset(make_engine: MakeEngine) -> None:
    engine = make_engine()
    engine.add(GenerationRequest("r", (1, 2), SamplingParams()))

    with pytest.raises(EngineError, match="under way"):
        engine.reset_counts()
