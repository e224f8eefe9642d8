"""Log probabilities are those of transformers, raw or processed, cached or not, and of the tokens beside them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine import Delta, Engine, GenerationRequest, SamplingParams, admission
from engine.api import RequestError
from tests.engine.margins import MIN_MARGIN
from tests.engine.models import VOCAB, ragged_prompts

pytestmark = pytest.mark.usefixtures("clear_choices")

ASKED = SamplingParams(temperature=0.9, seed=3, max_tokens=12, ignore_eos=True, logprobs=5)


def exact(path: Path, prompt: list[int], answer: tuple[int, ...]) -> torch.Tensor:
    """Raw log probabilities [answer, vocab] before each of the answer's tokens."""
    model: Any = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return torch.as_tensor(logits.log_softmax(-1))


@pytest.mark.parametrize("kernels", ["torch", "auto"])
def test_raw_ones_are_those_of_transformers_cold_and_warm(model_path: Callable[[str], Path], kernels: Any) -> None:
    path, prompts = model_path("qwen3"), ragged_prompts(VOCAB)
    engine = Engine.from_pretrained(path, kv_cache_tokens=4096, kernels=kernels)

    cold, warm = engine.generate(prompts, ASKED), engine.generate(prompts, ASKED)

    assert engine.stats().cached_tokens > 0
    for prompt, first, second in zip(prompts, cold, warm, strict=True):
        wanted = exact(path, prompt, first.token_ids)
        assert first.logprobs is not None
        assert second.token_ids == first.token_ids
        for row, token, one in zip(wanted, first.token_ids, first.logprobs, strict=True):
            values, tokens = row.topk(5)
            assert one.chosen.token_id == token
            assert one.chosen.logprob == pytest.approx(float(row[token]), abs=1e-4)
            assert float((values[:-1] - values[1:]).min()) >= MIN_MARGIN  # or rounding might turn their order
            assert [each.token_id for each in one.top] == tokens.tolist()
            assert [each.logprob for each in one.top] == pytest.approx(values.tolist(), abs=1e-4)


def test_processed_ones_are_those_that_were_drawn_from(model_path: Callable[[str], Path]) -> None:
    path, [prompt, *_] = model_path("qwen3"), ragged_prompts(VOCAB)[3:]
    params = replace(ASKED, logprobs_mode="processed", top_k=3, temperature=2.0, repetition_penalty=1.3)

    [answer] = Engine.from_pretrained(path, kv_cache_tokens=4096).generate([prompt], params)

    assert answer.logprobs is not None
    for one in answer.logprobs:
        kept = [each for each in one.top if each.logprob > -1e30]
        assert len(kept) == 3
        assert sum(torch.tensor([each.logprob for each in kept]).exp()) == pytest.approx(1, abs=1e-5)
        assert one.chosen.token_id in {each.token_id for each in kept}


def test_bytes_joined_are_the_text(model_path: Callable[[str], Path]) -> None:
    engine = Engine.from_pretrained(model_path("llama-tied"), kv_cache_tokens=4096)
    params = SamplingParams(temperature=3.0, seed=1, max_tokens=60, ignore_eos=True, logprobs=0)

    answers = engine.generate(["The river", "naïve café"], params)

    for answer in answers:
        assert answer.logprobs is not None
        special = engine._admission.tokenizer.eos_token_ids
        said = b"".join(one.chosen.bytes for one in answer.logprobs if one.chosen.token_id not in special)
        assert said.decode("utf-8", "replace") == answer.text
        assert all(one.top == () for one in answer.logprobs)


def test_the_token_that_ends_an_answer_has_none(model_path: Callable[[str], Path]) -> None:
    engine = Engine.from_pretrained(model_path("llama-tied"), kv_cache_tokens=4096)
    [plain] = engine.generate([[5, 6, 7]], SamplingParams(temperature=0, max_tokens=6, ignore_eos=True))
    last = plain.token_ids[3]
    assert last not in plain.token_ids[:3]

    [answer] = engine.generate(
        [[5, 6, 7]], SamplingParams(temperature=0, max_tokens=6, stop_token_ids=(last,), ignore_eos=True, logprobs=1)
    )

    assert answer.token_ids == plain.token_ids[:4]
    assert answer.logprobs is not None
    assert [one.chosen.token_id for one in answer.logprobs] == list(plain.token_ids[:3])


def test_rows_that_ask_for_none_get_none(model_path: Callable[[str], Path]) -> None:
    engine = Engine.from_pretrained(model_path("llama-tied"), kv_cache_tokens=4096)
    plain = replace(ASKED, logprobs=None)

    asked, unasked = engine.generate([[5, 6, 7], [5, 6, 7]], [ASKED, plain])

    assert asked.logprobs is not None
    assert unasked.logprobs is None
    assert asked.token_ids == unasked.token_ids


@pytest.mark.parametrize("field", [{"logprobs": 21}, {"logprobs": -1}, {"logprobs_mode": "cooked"}])
def test_values_out_of_range_are_refused_by_name(field: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refusal:
        SamplingParams(**field)

    assert refusal.value.param == next(iter(field))


@pytest.mark.parametrize("kernels", ["torch", "auto"])
@pytest.mark.parametrize("config", [{}, {"prefill_chunk": 7}, {"kv_cache_tokens": 416}], ids=str)
def test_those_of_the_prompt_are_those_of_transformers_cached_or_not(
    model_path: Callable[[str], Path], kernels: Any, config: dict[str, Any]
) -> None:
    path, prompts = model_path("qwen3"), ragged_prompts(VOCAB)
    engine = Engine.from_pretrained(path, **{"kv_cache_tokens": 4096, "kernels": kernels} | config)
    plain = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    expected = engine.generate(prompts, plain)  # and now the cache knows the prompts

    answers = engine.generate(prompts, replace(plain, prompt_logprobs=3))

    for prompt, answer, usual in zip(prompts, answers, expected, strict=True):
        assert answer.token_ids == usual.token_ids
        assert answer.logprobs is None
        assert answer.prompt_logprobs is not None
        first, *rest = answer.prompt_logprobs
        assert first.chosen.token_id == prompt[0]
        assert math.isnan(first.chosen.logprob)
        wanted = exact(path, prompt[:1], tuple(prompt[1:])) if len(prompt) > 1 else torch.empty(0, VOCAB)
        for row, token, one in zip(wanted, prompt[1:], rest, strict=True):
            assert one.chosen.token_id == token
            assert one.chosen.logprob == pytest.approx(float(row[token]), abs=1e-4)
            likelier = [int((row > row[token] + off).sum()) for off in (MIN_MARGIN, -MIN_MARGIN)]  # itself in the last
            assert likelier[0] < one.rank <= likelier[1]
            assert [each.logprob for each in one.top] == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)
    engine.check_integrity()


def test_a_prompt_is_scored_beside_others_and_for_all_its_choices(model_path: Callable[[str], Path]) -> None:
    engine = Engine.from_pretrained(model_path("qwen3"), kv_cache_tokens=4096)
    prompt = ragged_prompts(VOCAB)[-1]
    plain = SamplingParams(temperature=1.0, seed=1, max_tokens=4, ignore_eos=True)

    *scored, beside = engine.generate([prompt, prompt], [replace(plain, prompt_logprobs=0, n=3), plain])

    assert [one.choice for one in scored] == [0, 1, 2]
    assert all(one.prompt_logprobs is not None and len(one.prompt_logprobs) == len(prompt) for one in scored)
    assert beside.prompt_logprobs is None
    assert beside.token_ids == scored[0].token_ids


@pytest.mark.parametrize(("alternatives", "refused"), [(0, False), (20, True)])
def test_a_prompt_has_no_more_log_probabilities_than_others_can_wait_for(
    model_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, alternatives: int, refused: bool
) -> None:
    monkeypatch.setattr(admission, "MAX_PROMPT_LOGPROBS", 100)
    engine = Engine.from_pretrained(model_path("qwen3"), kv_cache_tokens=1024)
    params = SamplingParams(max_tokens=1, prompt_logprobs=alternatives)
    if not refused:
        assert engine.generate([[1] * 100], params)[0].prompt_logprobs is not None
        return
    with pytest.raises(RequestError) as refusal:
        engine.generate([[1] * 100], params)

    assert refusal.value.param == "prompt_logprobs"


def test_a_prompt_is_scored_once_whatever_happens_to_its_answer(model_path: Callable[[str], Path]) -> None:
    engine = Engine.from_pretrained(model_path("qwen3"), kv_cache_tokens=4096)
    prompt = (ragged_prompts(VOCAB)[-1] * 2)[:150]  # more than a step scores
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, prompt_logprobs=0)
    [undisturbed] = engine.generate([prompt], params)
    engine.add(GenerationRequest("preempted", tuple(prompt), params))
    deltas: list[Delta] = []
    while not deltas:
        deltas += engine.step()
    [running] = engine._scheduler.running
    engine._scheduler.requeue(running, engine.now())
    deltas += (following := engine.step())
    computed = engine.last_step.prompt_tokens
    while engine.has_work:
        deltas += engine.step()

    assert len(following) == 1, "it goes on within a step"
    assert computed <= 16, "from the blocks of the prefix cache"
    assert sum(delta.prompt_logprobs is not None for delta in deltas) == 1
    assert tuple(token for delta in deltas for token in delta.token_ids) == undisturbed.token_ids
