"""A seeded request has one answer: alone, among others, cold or warm, after preemption, and from any cut of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine import Engine, SamplingParams
from engine.api import Delta, GenerationRequest, Grammar
from tests.engine.models import VOCAB, ragged_prompts

pytestmark = pytest.mark.usefixtures("clear_choices")

MakeEngine = Callable[..., Engine]
PROMPTS = [tuple(prompt) for prompt in ragged_prompts(VOCAB)]
OTHERS = SamplingParams(temperature=1.2, max_tokens=24, ignore_eos=True)
LENGTH = 24
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "free": {},
    "cut": {"top_k": 60, "top_p": 0.9, "min_p": 0.001, "typical_p": 0.95},
    "rules": {"repetition_penalty": 1.2, "presence_penalty": 0.4, "frequency_penalty": 0.3, "no_repeat_ngram_size": 3},
    "biased": {"logit_bias": {7: 4.0, 9: -50.0}, "min_tokens": 20, "bad_words": ("qu", "ick brown")},
    "grammar": {"grammar": Grammar.regex("[a-z ]{40,60}"), "ignore_eos": False},
    "stop": {"stop": ("zzzz",), "logprobs": 1},
}


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[int, ...]]:
    """What each kind of request answers alone, once asked."""
    return {}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def params(kind: str) -> SamplingParams:
    return SamplingParams(**{"temperature": 1.1, "seed": 77, "max_tokens": LENGTH, "ignore_eos": True, **KINDS[kind]})


def ask(engine: Engine, kind: str, prompts: list[tuple[int, ...]] | None = None) -> tuple[int, ...]:
    """The answer to the fifth prompt; ``prompts`` are asked at the same time."""
    others = prompts or []
    settings = [*([OTHERS] * len(others)), params(kind)]
    return engine.generate([*others, PROMPTS[5]], settings)[-1].token_ids


@pytest.fixture
def alone(make_engine: MakeEngine, answers: dict[str, tuple[int, ...]], kind: str) -> tuple[int, ...]:
    if kind not in answers:
        answers[kind] = ask(make_engine(), kind)
    return answers[kind]


@pytest.mark.parametrize(
    "config",
    [
        {"prefix_caching": False},
        {"prefill_chunk": 1},
        {"prefill_chunk": 7, "max_batch_tokens": 40, "max_sequences": 40},
        {"kv_cache_tokens": 144, "prefix_caching": False},
        {"kv_cache_tokens": 144},
        {"speculative_tokens": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("others", [0, 31])
def test_whatever_else_is_under_way(
    make_engine: MakeEngine, kind: str, alone: tuple[int, ...], config: dict[str, Any], others: int
) -> None:
    engine = make_engine(**config)

    for _ in range(2):  # the second time with a warm cache, if there is one
        assert ask(engine, kind, (PROMPTS * 4)[:others]) == alone


def test_preemption_is_not_to_be_seen(make_engine: MakeEngine, kind: str, alone: tuple[int, ...]) -> None:
    engine = make_engine(kv_cache_tokens=144, prefix_caching=False)

    assert ask(engine, kind, PROMPTS[:4]) == alone
    assert engine.stats().preemptions > 0


def test_from_any_cut_it_goes_on_alike(make_engine: MakeEngine, kind: str, alone: tuple[int, ...]) -> None:
    engine = make_engine()
    whole = texts(engine, GenerationRequest("whole", PROMPTS[5], params(kind)))
    for cut in range(1, len(alone)):
        deltas = texts(engine, GenerationRequest(f"from {cut}", PROMPTS[5], params(kind), resume=alone[:cut]))

        assert alone[:cut] + tuple(token for delta in deltas for token in delta.token_ids) == alone
        rest = "".join(delta.text for delta in deltas)
        assert "".join(delta.text for delta in whole).endswith(rest)


def texts(engine: Engine, request: GenerationRequest) -> list[Delta]:
    engine.add(request)
    deltas: list[Delta] = []
    while engine.has_work:
        deltas += engine.step()
    return deltas
