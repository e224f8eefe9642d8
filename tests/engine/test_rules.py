"""Each rule and each cut is transformers', alone and stacked; what OpenAI defines is as OpenAI defines it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from engine import Engine
from engine.api import FinishReason, GenerationRequest, RequestError, SamplingParams
from engine.decode.rules import LogitRules, RuledRow, apply_rules
from engine.decode.sampling import Draw, NothingLeftError, processed, sample
from engine.decode.token_counts import TokenCounts
from tests.engine.conftest import MakeEngine
from tests.engine.models import VOCAB, ragged_prompts

SIZE = 60
END = 3
PROMPT = 12  # tokens

Stack = dict[str, Any]
"""Settings by their names; bad words as tokens."""


def theirs(stack: Stack, prompt: int) -> Any:
    """In the order of transformers' own list."""
    make: dict[str, Callable[[Any], Any]] = {
        "logit_bias": lambda bias: SequenceBiasLogitsProcessor([[[token], value] for token, value in bias.items()]),
        "repetition_penalty": RepetitionPenaltyLogitsProcessor,
        "no_repeat_ngram_size": NoRepeatNGramLogitsProcessor,
        "bad_words": lambda words: NoBadWordsLogitsProcessor([list(word) for word in words], eos_token_id=None),
        "min_tokens": lambda count: MinNewTokensLengthLogitsProcessor(prompt, count, END),
        "temperature": TemperatureLogitsWarper,
        "top_k": TopKLogitsWarper,
        "top_p": TopPLogitsWarper,
        "min_p": MinPLogitsWarper,
        "typical_p": TypicalLogitsWarper,
    }
    return LogitsProcessorList([make[name](stack[name]) for name in make if name in stack])


def draw_of(stack: Stack, tokens: list[int], prompt: int = PROMPT, seed: int = 0) -> Draw:
    words = stack.get("bad_words", [])
    params = SamplingParams(**stack | {"bad_words": tuple(map(str, words))})
    rules = LogitRules.of(params, prompt, SIZE, {END}, words)
    return Draw(params, seed, len(tokens), rules, tokens)


def stacks() -> st.SearchStrategy[Stack]:
    token = st.integers(0, SIZE - 1)
    return st.fixed_dictionaries(
        {"temperature": st.floats(0.2, 3)},
        optional={
            "logit_bias": st.dictionaries(token, st.floats(-10, 10, width=32), min_size=1, max_size=8),
            "repetition_penalty": st.floats(0.5, 2),
            "no_repeat_ngram_size": st.integers(1, 4),
            "bad_words": st.lists(
                st.lists(token, min_size=1, max_size=3).map(tuple), min_size=1, max_size=4, unique=True
            ),
            "min_tokens": st.integers(1, 12),
            "top_k": st.integers(1, SIZE),
            "top_p": st.floats(0.05, 0.99),
            "min_p": st.floats(0.01, 0.9),
            "typical_p": st.floats(0.05, 0.99),
        },
    )


def assert_same(ours: Tensor, wanted: Tensor) -> None:
    """To 1e-6 where a token is left; which are left may differ for one whose sum lies on the very border."""
    different = ours.isinf() != wanted.isinf()
    assert different.sum() <= 1
    if different.any():
        assert min(float(ours[different].exp()), float(wanted[different].exp())) == 0
    both = ~different
    torch.testing.assert_close(ours[both], wanted[both], rtol=1e-6, atol=1e-6)


ALONE: list[Stack] = [
    {"logit_bias": {4: 5.0, 9: -100.0}},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3},
    {"bad_words": [(5,), (2, 7), (7, 2, 2)]},
    {"min_tokens": 9},
    {"temperature": 0.3},
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"typical_p": 0.6},
]


@pytest.mark.parametrize("stack", ALONE, ids=lambda stack: "-".join(map(str, stack)))
def test_each_alone_is_that_of_transformers(stack: Stack) -> None:
    generator = torch.Generator().manual_seed(0)
    for length in (PROMPT, PROMPT + 1, PROMPT + 30):
        tokens = torch.randint(0, 8, (16, length), generator=generator)
        logits = 3 * torch.randn(16, SIZE, generator=generator)

        ours = processed(logits, [draw_of(stack, row) for row in tokens.tolist()])

        for row, wanted in zip(ours, theirs(stack, PROMPT)(tokens, logits.clone()), strict=True):
            assert_same(row, wanted)


@settings(max_examples=300, deadline=None)
@given(stacks=st.lists(stacks(), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_any_stack_is_that_of_transformers_in_any_batch(stacks: list[Stack], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    length = PROMPT + int(torch.randint(0, 20, (1,), generator=generator))
    tokens = torch.randint(0, 9, (len(stacks), length), generator=generator)
    logits = 3 * torch.randn(len(stacks), SIZE, generator=generator)

    ours = processed(logits, [draw_of(stack, row) for stack, row in zip(stacks, tokens.tolist(), strict=True)])

    for row, stack in enumerate(stacks):
        wanted = theirs(stack, PROMPT)(tokens[row : row + 1], logits[row : row + 1].clone())[0]
        assert_same(ours[row], wanted)


def test_presence_and_frequency_are_taken_off_what_the_answer_has() -> None:
    """https://platform.openai.com/docs/guides/text-generation: mu[j] - c[j] * alpha_frequency - (c[j] > 0) *
    alpha_presence, c counted in the answer."""
    tokens = [1, 1, 2, 4, 4, 4, 6]
    params = SamplingParams(temperature=0, presence_penalty=0.5, frequency_penalty=0.25)
    draw = Draw(params, 0, len(tokens), LogitRules.of(params, 3, SIZE), tokens)

    change = processed(torch.zeros(1, SIZE), [draw])[0]

    assert change[4] == -(0.5 + 3 * 0.25)
    assert change[6] == -(0.5 + 0.25)
    assert change.count_nonzero() == 2


def test_nothing_but_what_is_allowed_is_left() -> None:
    draw = draw_of({"allowed_token_ids": (5, 9), "temperature": 0.0}, [1] * PROMPT)

    left = processed(torch.randn(1, SIZE), [draw])[0].isfinite().nonzero().flatten()

    assert left.tolist() == [5, 9]


@pytest.mark.parametrize("stack", [{"top_k": 6}, {"min_p": 0.1}, {"typical_p": 0.7}, {"logit_bias": {3: 2.0}}])
def test_draws_follow_the_processed_distribution(stack: Stack) -> None:
    """Few draws each: that all 200,000 do is a long test."""
    logits = 2 * torch.randn(1, SIZE, generator=torch.Generator().manual_seed(5))
    assert chi_square(stack, logits, 20_000, lambda exact: exact) > 1e-3
    assert chi_square(stack, logits, 20_000, lambda exact: (exact / 1.1).softmax(-1).log()) < 1e-3


def chi_square(stack: Stack, logits: Tensor, count: int, claim: Callable[[Tensor], Tensor]) -> float:
    """The p-value of draws against what is claimed to be their distribution, given as logits."""
    tokens = list(range(PROMPT))
    draws = [draw_of(stack, tokens, seed=seed) for seed in range(count)]
    found = torch.tensor([token for token in sample(logits.repeat(count, 1), draws) if isinstance(token, int)])
    exact = claim(processed(logits, draws[:1])[0]).softmax(-1).double()
    likely = exact * count >= 5
    observed = found.bincount(minlength=SIZE).double()
    assert observed[exact == 0].sum() == 0
    rest = [(~likely & (exact > 0))]
    wanted = torch.cat([exact[likely], exact[rest[0]].sum().unsqueeze(0)]) * count
    seen = torch.cat([observed[likely], observed[rest[0]].sum().unsqueeze(0)])
    keep = wanted > 0
    return float(stats.chisquare(seen[keep], wanted[keep] * (seen[keep].sum() / wanted[keep].sum())).pvalue)


def test_a_row_that_forbids_all_fails_alone() -> None:
    logits = torch.randn(3, SIZE)
    logits[2, 0] = float("nan")
    nothing = {"allowed_token_ids": (5,), "bad_words": [(5,)], "temperature": 1.0}
    draws = [draw_of({}, [1] * PROMPT), draw_of(nothing, [1] * PROMPT), draw_of({}, [1] * PROMPT)]

    first, second, third = sample(logits, draws)

    assert isinstance(first, int)
    assert isinstance(second, NothingLeftError)
    assert isinstance(third, FloatingPointError)


@given(st.lists(st.lists(st.integers(0, 200), max_size=90), max_size=6))
def test_counts_are_those_of_all_tokens_however_they_come(parts: list[list[int]]) -> None:
    counts = TokenCounts()
    for part in parts:
        counts.add(part)

    whole = [token for part in parts for token in part]
    assert dict(zip(counts.ids.tolist(), counts.counts.tolist(), strict=True)) == {
        token: whole.count(token) for token in whole
    }


@given(tokens=st.lists(st.integers(0, 5), min_size=4, max_size=40), size=st.integers(1, 4), data=st.data())
def test_rules_say_the_same_however_their_tokens_come(tokens: list[int], size: int, data: st.DataObject) -> None:
    """A sequence that is resumed, or whose step is tried again, is read at once or twice."""
    params = SamplingParams(no_repeat_ngram_size=size, presence_penalty=0.5)
    whole, parts = LogitRules(params, 2, SIZE), LogitRules(params, 2, SIZE)
    whole.read(tokens)
    for cut in sorted(data.draw(st.lists(st.integers(0, len(tokens)), max_size=4))):
        parts.read(tokens[:cut])
    parts.read(tokens)

    branch = parts.branch()
    assert branch.forbidden(tokens) == parts.forbidden(tokens) == whole.forbidden(tokens)
    for one, follows in ((parts, [1]), (branch, [2, 3])):
        alone = LogitRules(params, 2, SIZE)
        alone.read([*tokens, *follows])
        one.read([*tokens, *follows])
        assert one.forbidden([*tokens, *follows]) == alone.forbidden([*tokens, *follows])
        assert one.said is not None
        assert alone.said is not None
        assert torch.equal(one.said.counts, alone.said.counts)


class TestInTheEngine:
    RULES = SamplingParams(
        temperature=0.8,
        seed=5,
        repetition_penalty=1.2,
        frequency_penalty=0.3,
        no_repeat_ngram_size=3,
        min_tokens=12,
        min_p=0.01,
        max_tokens=20,
    )

    @pytest.mark.usefixtures("clear_choices")
    def test_answers_are_the_same_alone_in_a_batch_and_after_preemption(
        self, model_path: Callable[[str], Path]
    ) -> None:
        path, prompts = model_path("qwen3"), ragged_prompts(VOCAB)
        engine = Engine.from_pretrained(path, kv_cache_tokens=4096)
        together = [answer.token_ids for answer in engine.generate(prompts, self.RULES)]
        tight = Engine.from_pretrained(path, kv_cache_tokens=416, prefix_caching=False)

        assert [engine.generate([prompt], self.RULES)[0].token_ids for prompt in prompts] == together
        assert [answer.token_ids for answer in tight.generate(prompts, self.RULES)] == together
        assert tight.stats().preemptions > 0
        assert all(len(answer) >= 12 for answer in together)
        assert all(len(set(zip(a, a[1:], a[2:], strict=False))) == len(a) - 2 for a in together)

    def test_bad_words_are_not_said(self, model_path: Callable[[str], Path]) -> None:
        engine = Engine.from_pretrained(model_path("qwen3"), kv_cache_tokens=4096)
        params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
        [plain] = engine.generate(["The river"], params)
        word = plain.text.split()[0]
        banned = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, bad_words=(word,))

        [answer] = engine.generate(["The river"], banned)

        assert len(answer.token_ids) == 40
        spelt = engine._admission.tokenizer.spellings((word,))
        for tokens in spelt:
            cuts = [answer.token_ids[at : at + len(tokens)] for at in range(len(answer.token_ids))]
            assert tokens not in cuts

    @pytest.mark.parametrize("param", ["logit_bias", "allowed_token_ids", "stop_token_ids"])
    def test_tokens_that_the_model_has_not_are_refused_by_name(
        self, model_path: Callable[[str], Path], param: str
    ) -> None:
        engine = Engine.from_pretrained(model_path("qwen3"), kv_cache_tokens=4096)
        value: Any = {10**6: 1.0} if param == "logit_bias" else (10**6,)

        with pytest.raises(RequestError) as refusal:
            engine.generate([[1, 2, 3]], SamplingParams(**{param: value}))

        assert refusal.value.param == param

    def test_a_request_that_forbids_all_fails_alone(self, model_path: Callable[[str], Path]) -> None:
        engine = Engine.from_pretrained(model_path("qwen3"), kv_cache_tokens=4096)
        word = engine._admission.tokenizer.decode([40])
        [tokens] = {t for t in engine._admission.tokenizer.spellings((word,)) if t == (40,)}
        nothing = SamplingParams(allowed_token_ids=tokens, bad_words=(word,), max_tokens=4)

        failed, fine = engine.generate([[1, 2, 3], [1, 2, 3]], [nothing, SamplingParams(max_tokens=4, ignore_eos=True)])

        assert failed.finish_reason is FinishReason.REFUSED
        assert "no token" in (failed.error or "")
        assert fine.finish_reason is FinishReason.LENGTH
        engine.check_integrity()


@pytest.mark.parametrize(
    "field",
    [
        {"min_p": 1.5},
        {"typical_p": 0.0},
        {"repetition_penalty": 0.0},
        {"presence_penalty": float("nan")},
        {"frequency_penalty": float("inf")},
        {"no_repeat_ngram_size": -1},
        {"no_repeat_ngram_size": 33},
        {"logit_bias": {1: float("nan")}},
        {"bad_words": ("",)},
        {"allowed_token_ids": ()},
        {"min_tokens": -1},
    ],
)
def test_values_out_of_range_are_refused_by_name(field: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refusal:
        SamplingParams(**field)

    assert refusal.value.param == next(iter(field))


def test_more_tokens_at_least_than_at_most_are_refused() -> None:
    with pytest.raises(RequestError, match="min_tokens"):
        SamplingParams(min_tokens=5, max_tokens=4)


def test_words_of_tokens_that_the_model_has_no_logits_for_forbid_nothing(make_engine: MakeEngine) -> None:
    """Fine-tunes add tokens to a tokenizer whose model cannot write them."""
    admission = replace(make_engine()._admission, vocab_size=SIZE)
    params = SamplingParams(bad_words=("fox", "a"), min_tokens=2)
    rules = admission.prepare(GenerationRequest("a", (1, 2), params), 0.0).sequence.rules
    logits = torch.zeros(1, SIZE)

    assert rules is not None
    apply_rules(logits, [RuledRow(0, rules, [1, 2])])

    assert logits.isneginf().sum() >= 1
