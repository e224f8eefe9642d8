"""Answers are the same with guesses and without; guesses save steps, and are not made where they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from engine import Engine, SamplingParams
from engine.decode.lookup import LENGTHS, PromptLookup
from tests.engine.answers import tokens_of
from tests.engine.families import CONFIGS, disturb
from tests.engine.models import VOCAB, ragged_prompts, write

MakeEngine = Callable[..., Engine]
REPEATING = [7, 8, 9, 10, 11, 12, 13] * 8
KINDS = {
    "greedy": SamplingParams(temperature=0, max_tokens=40, ignore_eos=True),
    "cold": SamplingParams(temperature=0.3, seed=4, max_tokens=40, ignore_eos=True),
    "hot": SamplingParams(temperature=1.2, seed=4, top_p=0.9, max_tokens=40, ignore_eos=True),
    "stopped": SamplingParams(temperature=0.3, seed=4, max_tokens=40, stop_token_ids=tuple(range(0, VOCAB, 9))),
}


DECOY = [5, 6, 7, 8] * 10


@pytest.mark.usefixtures("clear_choices")
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


@pytest.mark.usefixtures("clear_choices")
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

    for _ in range(2):  # the second time from what the first has left in the cache
        assert tokens_of(guessing, prompts, KINDS["greedy"]) == tokens_of(plain, prompts, KINDS["greedy"])
    assert guessing.stats().guessed_tokens > 0
    if guessing.config.speculative_tokens < guessing.config.prefill_chunk:
        assert guessing.stats().right_guesses > 0
    if guessing.config.kv_cache_tokens < 500:
        assert guessing.stats().preemptions > 0


@pytest.mark.usefixtures("clear_choices")
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


@pytest.mark.usefixtures("clear_choices")
def test_choices_are_the_same(make_engine: MakeEngine) -> None:
    params = replace(KINDS["cold"], n=3)
    plain, guessing = make_engine("qwen3"), make_engine("qwen3", speculative_tokens=4, speculative_rows=64)

    assert tokens_of(guessing, [REPEATING], params) == tokens_of(plain, [REPEATING], params)
    assert guessing.stats().guessed_tokens > 0


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("at", range(2, 30))
def test_an_answer_ends_within_guesses_that_are_right(make_engine: MakeEngine, at: int) -> None:
    """By a stop token, wherever it comes; usage counts what was told."""
    plain, guessing = make_engine("qwen3"), make_engine("qwen3", speculative_tokens=6)
    [whole] = tokens_of(plain, [REPEATING], KINDS["greedy"])
    params = replace(KINDS["greedy"], stop_token_ids=(whole[at],))

    [answer] = guessing.generate([REPEATING], params)

    [expected] = plain.generate([REPEATING], params)
    assert answer.token_ids == expected.token_ids
    assert answer.text == expected.text
    assert answer.finish_reason is expected.finish_reason
    assert answer.usage.completion_tokens == len(answer.token_ids)


@pytest.mark.usefixtures("clear_choices")
def test_sliding_windows_and_small_formats_change_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS["gemma2"])
    disturb(model)
    write(model, tmp_path)
    prompts = [REPEATING, DECOY, *ragged_prompts(VOCAB)]
    for kv_dtype in ("auto", "int8"):
        config: dict[str, Any] = {"kv_cache_tokens": 2048, "kv_dtype": kv_dtype}
        plain = Engine.from_pretrained(tmp_path, **config)
        guessing = Engine.from_pretrained(tmp_path, speculative_tokens=4, speculative_rows=64, **config)

        assert tokens_of(guessing, prompts, KINDS["greedy"]) == tokens_of(plain, prompts, KINDS["greedy"])
        assert guessing.stats().guessed_tokens > 0


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("batch_fails", [False, True])
def test_a_guess_that_breaks_is_forgotten_and_harms_nobody(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, batch_fails: bool
) -> None:
    plain, guessing = make_engine("qwen3"), make_engine("qwen3", speculative_tokens=4, speculative_rows=64)
    prompts, run = [REPEATING, DECOY], guessing._runner.run
    broken: list[Any] = []

    def breaking(chunks: Any) -> Any:
        chunks = list(chunks)
        drafts = [chunk for chunk in chunks if chunk.draft]
        if drafts and len(broken) < 3:
            broken.append(drafts)
            if batch_fails:
                raise MemoryError
            return run(chunks)._replace(unsound=drafts)
        return run(chunks)

    monkeypatch.setattr(guessing._runner, "run", breaking)

    assert tokens_of(guessing, prompts, KINDS["greedy"]) == tokens_of(plain, prompts, KINDS["greedy"])
    assert broken
    assert guessing.stats().failed == 0


def test_tokens_that_were_guessed_cost_as_much_as_others(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    charged: list[float] = []
    for tokens in (0, 6):
        engine = make_engine("qwen3", speculative_tokens=tokens)
        charged.append(0.0)
        charge = engine._scheduler.counters.charge

        def counted(tenant: str, cost: float, charge: Any = charge) -> None:
            charged[-1] += cost
            charge(tenant, cost)

        monkeypatch.setattr(engine._scheduler.counters, "charge", counted)
        tokens_of(engine, [REPEATING], KINDS["greedy"])
        assert bool(tokens) == (engine.stats().right_guesses > 0)

    assert charged[0] == charged[1] > 0


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 8), st.data())
def test_a_guess_is_what_followed_the_same_tokens_the_last_time(
    tokens: list[int], most: int, data: st.DataObject
) -> None:
    lookup = PromptLookup()
    for cut in sorted(data.draw(st.lists(st.integers(1, max(1, len(tokens))), max_size=4))):
        lookup.propose(tokens[:cut], most)
    found = lookup.propose(tokens, most)

    def expected() -> list[int]:
        for length in LENGTHS:
            tail = tokens[-length:]
            for end in range(len(tokens) - 1, length - 1, -1):
                if len(tokens) >= length and tokens[end - length : end] == tail:
                    longer = list(tokens)
                    for at in range(most):
                        longer.append(longer[end + at])
                    return longer[len(tokens) :]
        return []

    assert found == expected()


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.lists(st.integers(0, 3), max_size=20))
def test_branches_guess_from_what_they_have_in_common(tokens: list[int], more: list[int]) -> None:
    parent = PromptLookup()
    parent.read(tokens)
    branch = parent.branch()
    for lookup, follows in ((parent, more[::-1]), (branch, more)):
        alone = PromptLookup()
        assert lookup.propose([*tokens, *follows], 4) == alone.propose([*tokens, *follows], 4)


def test_one_whose_guesses_are_wrong_is_asked_seldom() -> None:
    lookup, asked = PromptLookup(), 0
    tokens = [1, 2, 3] * 4
    for _ in range(100):
        if guess := lookup.propose(tokens, 5):
            asked += 1
            lookup.learn(len(guess), 0)
        tokens = [*tokens, tokens[len(tokens) % 3]]

    assert 5 < asked < 20
