"""Answers are the same with guesses and without; guesses save steps, and are not made where they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Engine, SamplingParams
from engine.decode.lookup import LENGTHS, PromptLookup
from tests.engine.models import VOCAB, ragged_prompts

MakeEngine = Callable[..., Engine]
REPEATING = [7, 8, 9, 10, 11, 12, 13] * 8
KINDS = {
    "greedy": SamplingParams(temperature=0, max_tokens=40, ignore_eos=True),
    "cold": SamplingParams(temperature=0.3, seed=4, max_tokens=40, ignore_eos=True),
    "hot": SamplingParams(temperature=1.2, seed=4, top_p=0.9, max_tokens=40, ignore_eos=True),
    "stopped": SamplingParams(temperature=0.3, seed=4, max_tokens=40, stop_token_ids=tuple(range(0, VOCAB, 9))),
}


def tokens_of(engine: Engine, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[tuple[int, ...]]:
    answers = [answer.token_ids for answer in engine.generate(prompts, params)]
    engine.check_integrity()
    assert engine.stats().blocks_used == 0
    return answers


@pytest.mark.parametrize("kernels", ["torch", "auto"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["qwen3", "llama-tied"])
def test_answers_are_the_same_token_by_token(make_engine: MakeEngine, model: str, kind: str, kernels: Any) -> None:
    prompts = [*ragged_prompts(VOCAB), REPEATING]
    plain = make_engine(model, kernels=kernels)
    guessing = make_engine(model, kernels=kernels, speculative_tokens=5, speculative_rows=64)

    assert tokens_of(guessing, prompts, KINDS[kind]) == tokens_of(plain, prompts, KINDS[kind])
    for prompt in prompts[-2:]:
        assert tokens_of(guessing, [prompt], KINDS[kind]) == tokens_of(plain, [prompt], KINDS[kind])
    assert kind == "hot" or guessing.stats().guessed_tokens > 0


@pytest.mark.parametrize(
    "config",
    [
        {"kv_cache_tokens": 416},
        {"kv_cache_tokens": 416, "prefix_caching": False},
        {"prefill_chunk": 3},
        {"reserve_answers": True},
    ],
    ids=str,
)
def test_answers_are_the_same_in_tight_quarters(make_engine: MakeEngine, config: dict[str, Any]) -> None:
    prompts = ragged_prompts(VOCAB)
    plain = make_engine("qwen3")
    guessing = make_engine("qwen3", speculative_tokens=5, speculative_rows=64, **config)

    for _ in range(2):
        assert tokens_of(guessing, prompts, KINDS["greedy"]) == tokens_of(plain, prompts, KINDS["greedy"])
    assert guessing.stats().guessed_tokens > 0


def test_guesses_that_are_right_save_steps(make_engine: MakeEngine) -> None:
    """A random model that repeats itself when it is greedy, as small models do."""
    params = replace(KINDS["greedy"], max_tokens=100)
    plain, guessing = make_engine("qwen3"), make_engine("qwen3", speculative_tokens=6)

    assert tokens_of(guessing, [REPEATING], params) == tokens_of(plain, [REPEATING], params)

    assert guessing.stats().right_guesses > 10
    assert guessing.stats().steps < plain.stats().steps - 10


def test_nothing_is_guessed_where_many_decode_or_rules_apply(make_engine: MakeEngine) -> None:
    engine = make_engine("qwen3", speculative_tokens=5, speculative_rows=8)
    tokens_of(engine, [REPEATING] * 8, KINDS["greedy"])
    tokens_of(engine, [REPEATING], replace(KINDS["greedy"], repetition_penalty=1.1))
    tokens_of(engine, [REPEATING], replace(KINDS["greedy"], logprobs=1))

    assert engine.stats().guessed_tokens == 0


def test_choices_are_the_same(make_engine: MakeEngine) -> None:
    params = replace(KINDS["cold"], n=3)
    plain, guessing = make_engine("qwen3"), make_engine("qwen3", speculative_tokens=4, speculative_rows=64)

    assert tokens_of(guessing, [REPEATING], params) == tokens_of(plain, [REPEATING], params)


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 8), st.data())
def test_a_guess_is_what_followed_the_same_tokens_the_last_time(
    tokens: list[int], most: int, data: st.DataObject
) -> None:
    lookup = PromptLookup()
    for cut in sorted(data.draw(st.lists(st.integers(1, max(1, len(tokens))), max_size=4))):
        lookup.guess(tokens[:cut], most)
    found = lookup.guess(tokens, most)

    def expected() -> list[int]:
        for length in LENGTHS:
            tail = tokens[-length:]
            for end in range(len(tokens) - 1, length - 1, -1):
                if len(tokens) >= length and tokens[end - length : end] == tail:
                    return tokens[end : end + most]
        return []

    assert found == expected()


def test_one_whose_guesses_are_wrong_is_asked_seldom() -> None:
    lookup, asked = PromptLookup(), 0
    tokens = [1, 2, 3] * 4
    for _ in range(100):
        if guess := lookup.guess(tokens, 5):
            asked += 1
            lookup.learn(len(guess), 0)
        tokens = [*tokens, tokens[len(tokens) % 3]]

    assert 5 < asked < 20
