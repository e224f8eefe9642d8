"""``max_tokens=0``: a prompt is computed and scored, and nothing is generated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine import SamplingParams
from engine.api import BeamSearch, ContextLengthError, Delta, FinishReason, GenerationRequest, Grammar, RequestError
from tests.engine.conftest import MakeEngine
from tests.engine.models import VOCAB, ragged_prompts

SCORED = SamplingParams(temperature=0, max_tokens=0, prompt_logprobs=2)


def run(engine: Any, *requests: GenerationRequest) -> list[Delta]:
    for request in requests:
        engine.add(request)
    deltas: list[Delta] = []
    while engine.has_work:
        deltas += engine.step()
    return deltas


@pytest.mark.parametrize("kernels", ["torch", "auto"])
def test_the_scores_are_those_of_a_request_with_an_answer(make_engine: MakeEngine, kernels: str) -> None:
    engine, prompts = make_engine(kernels=kernels), ragged_prompts(VOCAB)
    expected = engine.generate(prompts, replace(SCORED, max_tokens=3))

    scored = engine.generate(prompts, SCORED)

    for prompt, one, other in zip(prompts, scored, expected, strict=True):
        assert (one.text, one.token_ids, one.finish_reason) == ("", (), FinishReason.LENGTH)
        assert (one.usage.prompt_tokens, one.usage.completion_tokens) == (len(prompt), 0)
        assert one.prompt_logprobs is not None
        assert other.prompt_logprobs is not None
        assert [each.chosen.token_id for each in one.prompt_logprobs] == prompt
        assert [each.chosen.logprob for each in one.prompt_logprobs[1:]] == pytest.approx(
            [each.chosen.logprob for each in other.prompt_logprobs[1:]], abs=1e-4
        )
    assert engine.stats().blocks_used == 0
    engine.check_integrity()


def test_without_scores_the_prompt_is_computed_and_kept(make_engine: MakeEngine) -> None:
    engine, prompt = make_engine(), ragged_prompts(VOCAB)[-1]

    [only] = run(engine, GenerationRequest("a", tuple(prompt), replace(SCORED, prompt_logprobs=None)))
    [again] = engine.generate([prompt], SamplingParams(max_tokens=1))

    assert only == Delta("a", (), "", FinishReason.LENGTH, only.usage)
    assert again.usage.cached_tokens >= 80
    assert engine.stats().generated_tokens == 1


@pytest.mark.parametrize(
    "settings", [{"n": 3}, {"n": 2, "best_of": 3}, {"logprobs": 1}, {"grammar": Grammar.regex("a")}]
)
def test_all_choices_are_empty(make_engine: MakeEngine, settings: dict[str, Any]) -> None:
    engine = make_engine()

    answers = engine.generate([[5, 6, 7]], replace(SCORED, **settings))

    assert [one.choice for one in answers] == list(range(settings.get("n", 1)))
    assert {(one.text, one.token_ids, one.finish_reason) for one in answers} == {("", (), FinishReason.LENGTH)}
    assert all(one.logprobs == (() if "logprobs" in settings else None) for one in answers)
    assert engine.stats().blocks_used == 0


@pytest.mark.parametrize("reserve", [False, True])
def test_a_prompt_may_fill_the_context(make_engine: MakeEngine, reserve: bool) -> None:
    engine = make_engine()
    length = engine.model_info.context_length
    full = tuple(1 + place % 500 for place in range(length))

    [only] = run(engine, GenerationRequest("a", full, SCORED, reserve=reserve))

    assert only.usage is not None
    assert only.usage.prompt_tokens == length
    assert only.prompt_logprobs is not None
    assert len(only.prompt_logprobs) == length
    for prompt, params in (((*full, 1), SCORED), (full, replace(SCORED, max_tokens=1)), (full, SamplingParams())):
        with pytest.raises(ContextLengthError):
            engine.prepare(GenerationRequest("b", prompt, params))


def test_others_go_on_beside_it(make_engine: MakeEngine) -> None:
    engine, prompts = make_engine(), ragged_prompts(VOCAB)
    greedy = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    [expected] = engine.generate([prompts[3]], greedy)

    deltas = run(
        engine,
        GenerationRequest("a", tuple(prompts[3]), greedy),
        GenerationRequest("b", tuple(prompts[4]), SCORED),
    )

    assert tuple(token for one in deltas for token in one.token_ids if one.request_id == "a") == expected.token_ids
    assert [one.finish_reason for one in deltas if one.request_id == "b"] == [FinishReason.LENGTH]


@pytest.mark.parametrize(
    "settings", [{"beam": BeamSearch(), "temperature": 1.0}, {"min_tokens": 1}, {"max_tokens": -1}]
)
def test_what_needs_an_answer_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        replace(SCORED, **settings)


def test_nothing_can_be_resumed_without_an_answer(make_engine: MakeEngine) -> None:
    with pytest.raises(RequestError, match="after its end"):
        make_engine().prepare(GenerationRequest("a", (1, 2), SCORED, resume=(3,)))
