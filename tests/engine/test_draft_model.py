"""A smaller model guesses for a larger one: answers are the same, and it stops where it costs more than it saves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine import Engine, SamplingParams
from engine.decode.lookup import PromptLookup
from engine.speculation import MAX_FAILURES, RENEWAL, SAMPLE, DraftModelSwitch
from tests.engine.answers import tokens_of
from tests.engine.models import VOCAB, ragged_prompts

MakeEngine = Callable[..., Engine]
PROMPTS = [tuple(prompt) for prompt in ragged_prompts(VOCAB)]
KINDS = {
    "greedy": SamplingParams(temperature=0, max_tokens=40, ignore_eos=True),
    "warm": SamplingParams(temperature=0.8, seed=4, max_tokens=40, ignore_eos=True),
    "cut": SamplingParams(temperature=1.2, seed=4, top_p=0.9, max_tokens=40, ignore_eos=True),
    "stopped": SamplingParams(temperature=0.8, seed=4, max_tokens=40, stop_token_ids=tuple(range(0, VOCAB, 9))),
    "choices": SamplingParams(n=3, temperature=0.9, seed=4, max_tokens=30, ignore_eos=True),
}


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether guesses pay is a matter of time, and not asked here."""
    monkeypatch.setattr(DraftModelSwitch, "wanted", lambda switch: True)


@pytest.fixture
def drafting(make_engine: MakeEngine, model_path: Callable[[str], Path]) -> MakeEngine:
    """An engine for whose model another one guesses, or its like."""

    def make(draft: str = "llama-untied", **config: Any) -> Engine:
        speculation = {"speculative_tokens": 4, "speculative_rows": 64, "draft_model": str(model_path(draft))}
        return make_engine("llama-tied", **{**speculation, **config})

    return make


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("draft", ["llama-untied", "llama-tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_the_same_token_by_token(
    make_engine: MakeEngine, drafting: MakeEngine, kind: str, draft: str
) -> None:
    plain, guessing = make_engine("llama-tied"), drafting(draft)

    assert tokens_of(guessing, PROMPTS, KINDS[kind]) == tokens_of(plain, PROMPTS, KINDS[kind])
    for prompt in PROMPTS[-2:]:
        assert tokens_of(guessing, [prompt], KINDS[kind]) == tokens_of(plain, [prompt], KINDS[kind])
    assert guessing.stats().guessed_tokens > 0


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("kind", ["greedy", "warm", "cut"])
def test_a_model_that_thinks_alike_guesses_right(drafting: MakeEngine, kind: str) -> None:
    engine = drafting("llama-tied")

    tokens_of(engine, PROMPTS[-1:], KINDS[kind])

    stats = engine.stats()
    assert stats.right_guesses == stats.guessed_tokens > 20
    assert stats.steps < 20


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize("kind", ["greedy", "warm"])
def test_it_guesses_on_the_compiled_kernels_too(
    make_engine: MakeEngine, model_path: Callable[[str], Path], kind: str
) -> None:
    """Which tell greedy answers without their logits."""
    config = {"speculative_tokens": 4, "speculative_rows": 64, "draft_model": str(model_path("llama-wide"))}
    engine = make_engine("llama-wide", kernels="compiled", threads=1, **config)
    plain = make_engine("llama-wide", kernels="compiled", threads=1)

    answers = tokens_of(engine, PROMPTS[-1:], KINDS[kind])

    assert answers == tokens_of(plain, PROMPTS[-1:], KINDS[kind])
    stats = engine.stats()
    assert stats.right_guesses == stats.guessed_tokens > 20


MANY = 3000


def third_tokens(engine: Engine, first_seed: int) -> list[int]:
    """The third token of many answers, each of its own seed."""
    params = [SamplingParams(seed=first_seed + n, top_k=6, max_tokens=5, ignore_eos=True) for n in range(MANY)]
    return [answer.token_ids[2] for answer in engine.generate([PROMPTS[2]] * MANY, params)]


def alike(one: list[int], other: list[int]) -> float:
    """How probable it is that both, if drawn alike, differ as much as they do (chi-square)."""
    table = np.array([[found.count(token) for token in {*one, *other}] for found in (one, other)])
    return float(stats.chi2_contingency(table[:, table.sum(0) >= 20]).pvalue)


def test_the_distribution_of_answers_is_the_same(
    make_engine: MakeEngine, drafting: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"max_sequences": 500, "kv_cache_tokens": 32_768, "max_waiting": 2 * MANY}
    plain = third_tokens(make_engine("llama-tied", **config), 0)
    engine = drafting(**config, speculative_rows=4096)

    assert alike(plain, third_tokens(engine, MANY)) > 1e-3
    assert engine.stats().guessed_tokens > MANY

    # What is guessed taken as it comes: not the same.
    monkeypatch.setattr("engine.decode.drawing._accepted", lambda chunk, drawn: drawn)
    assert alike(plain, third_tokens(drafting(**config, speculative_rows=4096), MANY)) < 1e-3


@pytest.mark.usefixtures("clear_choices")
@pytest.mark.parametrize(
    "config",
    [
        {"kv_cache_tokens": 256},
        {"kv_cache_tokens": 256, "prefix_caching": False},
        {"prefill_chunk": 7},
        {"max_sequences": 2},
        {"reserve_answers": True},
        {"block_size": 4},
    ],
    ids=str,
)
def test_memory_and_chunks_change_nothing(
    make_engine: MakeEngine, drafting: MakeEngine, config: dict[str, Any]
) -> None:
    expected = tokens_of(make_engine("llama-tied"), PROMPTS, KINDS["choices"])

    for draft in ("llama-untied", "llama-tied"):
        engine = drafting(draft, **config)
        assert tokens_of(engine, PROMPTS, KINDS["choices"]) == expected
        assert engine.stats().guessed_tokens > 0


@pytest.mark.usefixtures("clear_choices")
def test_what_the_prefix_cache_knows_the_smaller_model_reads_again(drafting: MakeEngine) -> None:
    engine = drafting("llama-tied")
    first = tokens_of(engine, PROMPTS[-1:], KINDS["greedy"])
    cold = engine.stats()

    assert tokens_of(engine, PROMPTS[-1:], KINDS["greedy"]) == first
    warm = engine.stats()
    assert warm.cached_tokens > 0
    assert warm.right_guesses - cold.right_guesses == warm.guessed_tokens - cold.guessed_tokens > 20


@pytest.mark.usefixtures("clear_choices")
def test_a_draft_that_fails_harms_nobody(
    make_engine: MakeEngine, drafting: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = drafting()

    tried = []

    def fail(chunks: Any) -> Any:
        tried.append(chunks)
        raise RuntimeError("broken")

    assert engine._drafter is not None
    monkeypatch.setattr(engine._drafter, "_draw_drafts", fail)

    assert tokens_of(engine, PROMPTS, KINDS["warm"]) == tokens_of(make_engine("llama-tied"), PROMPTS, KINDS["warm"])
    assert engine.stats().failed == 0
    assert len(tried) == MAX_FAILURES  # and then it is given up


@pytest.mark.usefixtures("clear_choices")
def test_what_was_read_of_wrong_guesses_is_read_again(drafting: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second step without guesses: the smaller model is behind by what it guessed, and by what it missed."""
    engine, turn = drafting("llama-tied"), [0]

    def every_second(switch: DraftModelSwitch) -> bool:
        turn[0] += 1
        return turn[0] % 2 == 0

    monkeypatch.setattr(DraftModelSwitch, "wanted", every_second)
    monkeypatch.setattr(PromptLookup, "propose", lambda lookup, tokens, most: [])
    tokens_of(engine, PROMPTS[-1:], KINDS["greedy"])

    stats = engine.stats()
    assert stats.right_guesses == stats.guessed_tokens > 10


@pytest.mark.parametrize(
    "settings",
    [{"presence_penalty": 0.5}, {"logprobs": 1}, {"min_tokens": 3}],
    ids=str,
)
def test_for_requests_with_rules_nothing_is_guessed(drafting: MakeEngine, settings: dict[str, Any]) -> None:
    engine = drafting()

    tokens_of(engine, PROMPTS[:2], replace(KINDS["warm"], **settings))

    assert engine.stats().guessed_tokens == 0


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"speculative_tokens": 0}, "speculative_tokens"),
        ({"context_length": 300}, "context"),
    ],
    ids=str,
)
def test_a_model_that_cannot_guess_is_refused(
    make_engine: MakeEngine, model_path: Callable[[str], Path], config: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        make_engine("llama-long", **{"speculative_tokens": 3, "draft_model": str(model_path("llama-tied")), **config})


def test_a_model_of_other_tokens_is_refused(make_engine: MakeEngine) -> None:
    embedded = Path(__file__).resolve().parents[2] / "deployments" / "models" / "fast"

    with pytest.raises(ValueError, match="tokens"):
        make_engine("llama-tied", speculative_tokens=3, draft_model=str(embedded))


class TestDraftModelSwitch:
    """By measured steps alone."""

    @pytest.fixture(autouse=True)
    def always(self) -> None:
        """Asked here."""

    @staticmethod
    def run(switch: DraftModelSwitch, steps: int, plain: float, guessed: float) -> list[bool]:
        """What is chosen where a step of each kind brings so many tokens a second."""
        chosen = []
        for _ in range(steps):
            guess = switch.wanted()
            chosen.append(guess)
            switch.learn(guess, 2 if guess else 1, 2 / guessed if guess else 1 / plain)
        return chosen

    @given(st.floats(1, 1e4), st.floats(1.05, 20), st.booleans())
    def test_what_is_faster_is_done_nearly_always(self, rate: float, ratio: float, guesses_pay: bool) -> None:
        plain, guessed = (rate, rate * ratio) if guesses_pay else (rate * ratio, rate)

        chosen = self.run(DraftModelSwitch(), 2000, plain, guessed)[2 * SAMPLE :]

        right = chosen.count(guesses_pay) / len(chosen)
        assert 1 - 2 * SAMPLE / RENEWAL <= right < 1  # now and then the other is tried

    def test_it_notices_when_things_change(self) -> None:
        switch = DraftModelSwitch()
        assert self.run(switch, 300, 100, 150)[-1]
        assert not self.run(switch, 60, 200, 120)[-1]
        assert self.run(switch, 400, 100, 300)[-1]
