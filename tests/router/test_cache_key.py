"""The digests of requests: everything that decides an answer makes another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api import BeamSearch, Conversation, FinishReason, Grammar, Message, Prompt, SamplingParams, ToolCall
from router.cache.answer_agreement import overlap, same_answers
from router.cache.cache_control import controlled
from router.cache.cache_key import CacheKeys, CacheScope, cache_keys, is_greedy
from router.complete_answer import Answer
from router.complete_answer import ToolCall as AnsweredCall
from router.inference_request import NO_CONTROLS, CacheControls, InferenceRequest, TextParsing

SCOPE = CacheScope("acme", "fast", "fast-model", "policy-1", "user")
TALK = Conversation((Message("system", "Be brief."), Message("user", "What is a quark?")))
GREEDY = SamplingParams(temperature=0.0)


def keys(prompt: Prompt = TALK, scope: CacheScope = SCOPE, **more: Any) -> CacheKeys:
    request = InferenceRequest("fast", [prompt], GREEDY, "messages", writer=lambda stamp: NotImplemented)
    return cache_keys(scope, replace(request, **more))


CHANGES: dict[str, dict[str, Any]] = {
    **{name: {"scope": replace(SCOPE, **{name: "x"})} for name in CacheScope.__slots__},
    "template": {"template_version": "greeting@2"},
    "namespace": {"cache": CacheControls(namespace="b")},
    "parsing": {"parsing": TextParsing(reasoning=True)},
    "max_tokens": {"sampling": replace(GREEDY, max_tokens=5)},
    "grammar": {"sampling": replace(GREEDY, grammar=Grammar.regex("a+"))},
    "grammar kind": {"sampling": replace(GREEDY, grammar=Grammar.lark("a+"))},
    "beam": {"sampling": replace(GREEDY, beam=BeamSearch(2))},
    "logit bias": {"sampling": replace(GREEDY, logit_bias={1: 2.0})},
    "sampled": {"sampling": SamplingParams(temperature=0.5, seed=1)},
    "other seed": {"sampling": SamplingParams(temperature=0.5, seed=2)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_anything_but_the_question_makes_another_key_and_another_partition(change: dict[str, Any]) -> None:
    base, changed = keys(), keys(**change)
    assert changed.exact != base.exact
    assert changed.partition != base.partition
    assert changed.question == base.question


def test_all_changes_make_different_keys() -> None:
    found = [keys(**change).exact for change in CHANGES.values()]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    "sampling",
    [replace(GREEDY, seed=4), replace(GREEDY, top_p=0.5), SamplingParams(top_k=1), SamplingParams(top_p=1e-9)],
    ids=str,
)
def test_what_has_no_effect_on_a_greedy_answer_makes_no_other_key(sampling: SamplingParams) -> None:
    assert is_greedy(sampling)
    assert keys(sampling=sampling) == keys()


def test_questions_of_one_kind_share_a_partition() -> None:
    one, other = (
        keys(Conversation((Message("system", "Be brief."), Message("user", text)))) for text in ("What is it?", "Who?")
    )
    assert one.partition == other.partition
    assert one.exact != other.exact
    assert (one.question, other.question) == ("What is it?", "Who?")
    assert one.partition not in (one.exact, other.exact)


@pytest.mark.parametrize(
    "prompt",
    [
        (1, 2, 3),
        "What is it?",
        "   ",
        Conversation((Message("user", "x" * 2001),)),
        Conversation(()),
        Conversation((Message("user", "Hi"), Message("assistant", "Well"))),
        Conversation((Message("user", "Hi"), Message("tool", "7", tool_call_id="a"))),
        Conversation((Message("user", "Hi"),), add_generation_prompt=False, continue_final_message=True),
    ],
    ids=lambda prompt: str(prompt)[:40],
)
def test_a_prompt_without_a_question_has_no_partition_of_its_own(prompt: Prompt) -> None:
    found = keys(prompt)
    assert found.question == ""
    assert found.partition == found.exact


TEXTS = st.sampled_from(
    ["", "a", "b", "a'", '"a', "\\", "\x00question", "'), Message(role='user', content='a", "\ud83d", "ä"]
)
CALLS = st.builds(ToolCall, TEXTS, TEXTS, st.none() | TEXTS)
MESSAGES = st.builds(
    Message, st.sampled_from(["user", "assistant", "system"]), TEXTS, st.tuples() | st.tuples(CALLS), st.none() | TEXTS
)
TALKS = st.builds(Conversation, st.lists(MESSAGES, max_size=3).map(tuple), st.lists(TEXTS, max_size=2).map(tuple))
PROMPTS = TALKS | TEXTS | st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple)


@given(PROMPTS, PROMPTS)
@settings(max_examples=400, deadline=None)
def test_two_prompts_have_one_key_only_if_they_are_equal(one: Prompt, other: Prompt) -> None:
    assert (keys(one).exact == keys(other).exact) == (one == other)


@pytest.mark.parametrize(
    ("header", "changed"),
    [
        (None, {}),
        ("", {}),
        ("no-cache", {"lookup": False}),
        ("No-Store , max-age=60", {"store": False, "max_age_s": 60.0}),
        ("max-age=0", {"max_age_s": 0.0}),
        ("max-age=-1, max-age=x, max-age=, private, max-stale=5", {}),
        ("max-age=99999999999999999999", {"max_age_s": 999999999999.0}),
    ],
)
def test_the_header_cache_control_narrows_what_the_body_says(header: str | None, changed: dict[str, Any]) -> None:
    assert controlled(NO_CONTROLS, header) == replace(NO_CONTROLS, **changed)


def test_the_narrower_age_counts() -> None:
    asked = CacheControls(max_age_s=10)
    assert controlled(asked, "max-age=60").max_age_s == 10
    assert controlled(asked, "max-age=5").max_age_s == 5


def answer(text: str, *calls: AnsweredCall) -> Answer:
    return Answer(0, 0, text, FinishReason.STOP, bool(calls), calls)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A quark is a particle.", "A quark is an elementary particle.", True),
        ("A quark is a particle.", "It rained all day in Paris.", False),
        ("It costs 5 euros.", "It costs 6 euros.", False),
        ("Yes.", "yes", True),
        ("", "", True),
        ("", "Yes.", False),
    ],
)
def test_answers_are_compared_by_their_words_and_numbers(one: str, other: str, same: bool) -> None:
    assert same_answers([answer(one)], [answer(other)]) is same
    assert overlap(one, other) == overlap(other, one)


def test_answers_with_other_tool_calls_are_not_the_same() -> None:
    call = AnsweredCall("1", "f", '{"a": 1, "b": 2}')
    assert same_answers([answer("", call)], [answer("", replace(call, id="2", arguments='{"b": 2, "a": 1}'))])
    assert not same_answers([answer("", call)], [answer("", replace(call, arguments='{"a": 2, "b": 2}'))])
    assert not same_answers([answer("", call)], [answer("")])
    deep = replace(call, arguments="[" * 50_000 + "]" * 50_000)  # which JSON readers give up
    assert same_answers([answer("", deep)], [answer("", deep)])
    assert not same_answers([answer("", deep)], [answer("", call)])
