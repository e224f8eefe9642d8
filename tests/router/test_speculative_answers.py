"""Answers that the engine begins while the request is checked: what is sent, billed and aborted, whatever the checks
say, and in whichever order both end."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from engine.api import ContextLengthError, Conversation, RequestError, Usage
from router import speculative_answers
from tests.router.asgi_client import Client
from tests.router.backend import WORDS
from tests.router.guarded import CHAT, TEXT, texts_of
from tests.router.leaving import post
from tests.router.speculating import WAIT_S, Speculating

ANSWER = "".join(WORDS)
MAIL = "Write to ann@example.com"
TOO_LONG = ContextLengthError("too long", "messages", "context_length_exceeded")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_the_engine_begins_beside_the_checks_and_its_answer_is_sent_after_them(path: str, stream: bool) -> None:
    service = Speculating()
    answer = await service.settled(service.ask(path=path, stream=stream))

    assert texts_of(answer, stream) == {0: (("<Hi>" if path == TEXT else "") + ANSWER, "stop")}
    assert answer.headers["x-manta-safety"] == "allowed"
    (request,) = service.backend.requests
    entry = await service.entry()
    assert entry["id"] == request.request_id.removesuffix("-0")
    assert (entry["input_tokens"], entry["output_tokens"], entry["outcome"]) == (3, 5, "finished")
    assert service.metrics.speculations == {"kept": 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_is_sent_before_the_verdict_though_the_engine_has_an_answer(stream: bool) -> None:
    service = Speculating()
    client = Client({"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "stream": stream})
    asked = asyncio.ensure_future(service.app(client.scope(), client.receive, client.send))
    await service.both_under_way()
    await asyncio.sleep(0.05)
    assert client.sent == []
    assert service.store._entries == {}
    service.classifier.goes_on.set()
    await service.until(lambda: "stop" in client.text)
    client.left.set()
    await asyncio.wait_for(asked, WAIT_S)
    assert "Hello" in client.text


async def test_without_the_setting_the_engine_waits_for_the_checks() -> None:
    service = Speculating(speculative_generation=False)
    asked = service.ask()
    await asyncio.wait_for(service.classifier.asked.wait(), WAIT_S)
    for _ in range(20):
        await asyncio.sleep(0)
    assert service.backend.requests == []
    service.classifier.goes_on.set()
    assert (await asked).status_code == 200
    assert service.metrics.speculations == {}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("on_block", ["error", "answer"])
async def test_what_the_checks_refuse_is_aborted_and_costs_nothing(
    on_block: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    service = Speculating(on_block=on_block)
    service.backend.stall_at = 2  # the engine is still at work when the verdict comes
    answer = await service.settled(service.ask("HARM", stream=stream))

    assert answer.status_code == (400 if on_block == "error" else 200)
    assert "Hello" not in answer.text
    assert service.backend.closed == 1
    entry = await service.entry()
    assert (entry["input_tokens"], entry["output_tokens"], entry["safety"]["decision"]) == (0, 0, "blocked")
    assert service.metrics.speculations == {"refused": 1}
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize(
    "policy",
    [{"pii": {"requests": "redact"}}, {"pii": {"requests": "pseudonymise"}}, {"secrets": {"requests": "redact"}}],
    ids=["redacted", "pseudonymised", "secrets"],
)
async def test_the_engine_waits_where_the_policy_takes_texts_out_that_the_model_must_not_see(policy: Any) -> None:
    service = Speculating(**policy)
    service.classifier.goes_on.set()
    assert (await service.ask(MAIL)).status_code == 200
    assert len(service.backend.requests) == 1
    assert service.metrics.speculations == {}


async def test_what_the_checks_change_is_begun_anew_under_an_id_of_its_own_and_billed_once() -> None:
    service = Speculating(earlier_turns="drop")
    turns = [{"role": role, "content": text} for role, text in (("user", "HARM"), ("assistant", "No."), ("user", "Hi"))]
    answer = await service.settled(asyncio.create_task(service.post(CHAT, {"messages": turns})))

    assert answer.json()["choices"][0]["message"]["content"] == ANSWER
    assert answer.headers["x-manta-safety"].startswith("redacted; dropped_turns=1")
    first, second = service.backend.requests
    assert isinstance(first.prompt, Conversation)
    assert isinstance(second.prompt, Conversation)
    assert (len(first.prompt.messages), len(second.prompt.messages)) == (3, 1)
    assert first.request_id != second.request_id
    assert (first.attempt, second.attempt) == (0, 1)  # one arrival for autoscaling
    entry = await service.entry()
    assert (entry["input_tokens"], entry["output_tokens"]) == (3, 5)
    assert service.metrics.speculations == {"changed": 1}


async def test_a_draft_made_during_the_checks_does_not_say_that_there_are_none() -> None:
    service = Speculating()
    await service.settled(service.ask())
    (draft,) = service.backend.accounts
    assert json.loads(draft)["safety"]["decision"] == "pending"
    assert (await service.entry())["safety"]["decision"] == "allowed"


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]},
        {"response_format": {"type": "json_object"}},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            ]
        },
        {"n": 3, "stop": ["x"], "seed": 7, "logprobs": True, "top_logprobs": 2},
    ],
    ids=["tools", "json", "parts", "choices"],
)
async def test_requests_of_any_form_are_the_same_before_and_after_checks_that_find_nothing(more: Any) -> None:
    service = Speculating()
    answer = await service.settled(service.ask(**more))
    assert answer.status_code == 200
    assert service.metrics.speculations == {"kept": 1}


async def test_a_new_policy_that_comes_during_the_checks_decides() -> None:
    service = Speculating(content=None, injection={"user": None, "documents": None})
    service.policies.set(speculative_generation=True, deadline_s=30, phrases={"block": ["漢字"]})
    asked = service.ask("Hi")
    await service.both_under_way()
    service.policies.set(deadline_s=30, phrases={"block": ["Hi"]})
    answer = await service.settled(asked)
    assert answer.status_code == 200  # decided by the policy with which the checks began
    assert service.metrics.speculations == {"kept": 1}


async def test_checks_that_take_long_end_the_engines_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may wait for a person, for minutes."""
    monkeypatch.setattr(speculative_answers, "MAX_AHEAD_S", 0.05)
    service = Speculating()
    service.backend.stall_at = 2
    asked = service.ask()
    await service.both_under_way()
    await service.until(lambda: service.backend.closed == 1)
    service.backend.stall_at = None
    answer = await service.settled(asked)

    assert answer.json()["choices"][0]["message"]["content"] == ANSWER
    assert len({each.request_id for each in service.backend.requests}) == 2
    assert service.metrics.speculations == {"late": 1}


async def test_no_more_work_is_begun_where_checks_are_late_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speculative_answers, "MAX_AHEAD_S", 0.0)
    service = Speculating()
    service.backend.stall_at = 2
    for _ in range(10):
        service.classifier.goes_on.clear()
        asked = service.ask()
        await asyncio.wait_for(service.classifier.asked.wait(), WAIT_S)
        await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.wait([asked])
    assert len(service.backend.requests) <= 2


async def test_a_client_that_leaves_during_the_checks_again_and_again_causes_no_more_work() -> None:
    service = Speculating()
    service.backend.stall_at = 2
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
    for _ in range(20):
        leaves = asyncio.Event()
        service.classifier.asked.clear()
        asked = asyncio.create_task(post(service.app, CHAT, body, leaves))
        await asyncio.wait_for(service.classifier.asked.wait(), WAIT_S)
        await asyncio.sleep(0)
        leaves.set()
        await asyncio.wait_for(asked, WAIT_S)
    assert len(service.backend.requests) <= 2
    assert service.metrics.speculations["left"] == len(service.backend.requests)


@pytest.mark.parametrize("stall_at", [0, 2])
async def test_a_request_that_is_begun_anew_waits_in_the_eyes_of_the_admission(stall_at: int) -> None:
    """Also if the answer that was aborted had its first token."""
    service = Speculating(earlier_turns="drop")
    service.backend.stall_at = stall_at
    turns = [{"role": role, "content": text} for role, text in (("user", "HARM"), ("assistant", "No."), ("user", "Hi"))]
    asked = asyncio.create_task(service.post(CHAT, {"messages": turns}))
    await service.both_under_way()
    await asyncio.sleep(0.01)
    service.backend.stall_at = 0
    service.classifier.goes_on.set()
    await service.until(lambda: len(service.backend.requests) == 2)
    assert service.backend.closed == 1  # before the second has begun
    other = service.ask()
    await service.until(lambda: len(service.metrics.waiting) == 2)
    assert service.metrics.waiting == [1, 2]
    for each in (asked, other):
        each.cancel()
    await asyncio.wait([asked, other])


@pytest.mark.parametrize("text", ["Hi", "HARM"])
async def test_an_error_of_the_engine_waits_for_the_verdict(text: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service = Speculating()
    service.backend.refused, service.backend.refusal = 1, RequestError("too odd", "prompt")
    asked = service.ask(text)
    await service.both_under_way()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not asked.done()
    answer = await service.settled(asked)

    assert answer.status_code == 400
    assert ("too odd" in answer.json()["error"]["message"]) is (text == "Hi")
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("after", [False, True])
async def test_an_error_in_the_midst_of_an_answer_is_told_as_ever(after: bool) -> None:
    """The fault comes before or after the verdict."""
    service = Speculating()
    service.backend.fault, service.backend.fault_at = RuntimeError("broken"), 3 if after else 0
    answer = await service.settled(service.ask())
    assert answer.status_code == 500
    assert (await service.entry())["outcome"] == "failed"


async def test_all_choices_and_prompts_are_begun_at_once() -> None:
    service = Speculating()
    asked = asyncio.create_task(service.post(TEXT, {"prompt": ["one", "two"], "n": 2, "stream": True}))
    await service.both_under_way()
    await service.until(lambda: len(service.backend.requests) == 2)
    texts = texts_of(await service.settled(asked), stream=True)

    assert {index: text for index, (text, _) in texts.items()} == {
        0: f"<one>{ANSWER}",
        1: f"1<one>{ANSWER}",
        2: f"<two>{ANSWER}",
        3: f"1<two>{ANSWER}",
    }
    assert len(service.backend.requests) == 2


async def test_a_halt_ends_the_answer_that_was_begun_ahead() -> None:
    service = Speculating(phrases={"block": ["wörld", "漢字"]}, halts="request")
    answer = await service.settled(service.ask(stream=True))
    assert texts_of(answer, stream=True)[0][1] == "content_filter"
    assert "wörld" not in answer.text
    (request,) = service.backend.requests
    assert request.sampling.bad_words == ("漢字",)


async def test_a_conversation_that_the_engine_finds_too_long_is_shortened_after_the_checks() -> None:
    service = Speculating(overflow={"policies": ["trim"]})
    service.backend.refused, service.backend.refusal = 1, TOO_LONG
    turns = [
        {"role": role, "content": f"{role} {place}. " * 60} for place in range(4) for role in ("user", "assistant")
    ]
    body = {"messages": [*turns, {"role": "user", "content": "And on Mondays?"}]}
    answer = await service.settled(asyncio.create_task(service.post(CHAT, body)))

    assert answer.status_code == 200
    assert "trim" in answer.headers["x-manta-context"]
    first, second = service.backend.requests
    assert isinstance(first.prompt, Conversation)
    assert isinstance(second.prompt, Conversation)
    assert len(second.prompt.messages) < len(first.prompt.messages)
    entry = await service.entry()
    assert (entry["input_tokens"], entry["output_tokens"]) == (3, 5)
    assert service.metrics.speculations == {"kept": 1}


async def test_a_request_that_the_answer_cache_may_answer_waits_for_the_checks() -> None:
    service = Speculating(cached=True)
    asked = service.ask(temperature=0)
    await asyncio.wait_for(service.classifier.asked.wait(), WAIT_S)
    for _ in range(20):
        await asyncio.sleep(0)
    assert service.backend.requests == []
    service.classifier.goes_on.set()
    assert (await asked).headers["x-manta-cache"] == "miss; new"
    assert (await service.ask(temperature=0)).headers["x-manta-cache"].startswith("exact")
    service.classifier.goes_on.clear()
    sampled = await service.settled(service.ask("And sampled?", temperature=1))
    assert sampled.headers["x-manta-cache"].startswith("bypass")
    assert service.metrics.speculations == {"kept": 1}


async def test_a_client_that_leaves_during_the_checks_ends_both() -> None:
    service = Speculating()
    service.backend.stall_at = 2
    leaves = asyncio.Event()
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
    asked = asyncio.create_task(post(service.app, CHAT, body, leaves))
    await service.both_under_way()
    leaves.set()
    await asyncio.wait_for(asked, WAIT_S)
    assert service.backend.closed == 1
    entry = await service.entry()
    assert (entry["outcome"], entry["input_tokens"], entry["output_tokens"]) == ("cancelled", 0, 0)


async def test_a_refused_request_leaves_its_tokens_to_the_next_one() -> None:
    """Otherwise its reservation would stay taken: the limit has room for one of them."""
    service = Speculating(tokens_per_minute=60)
    assert (await service.settled(service.ask("HARM", max_tokens=40))).status_code == 400
    assert len(service.backend.requests) == 1
    assert (await service.ask("Hi", max_tokens=40)).status_code == 200


async def test_a_client_that_is_refused_causes_no_more_work_until_it_has_paid_for_as_much() -> None:
    service = Speculating()
    for _ in range(10):
        service.backend.began.clear()
        refused = service.ask("HARM")
        await asyncio.wait_for(service.classifier.asked.wait(), WAIT_S)
        service.classifier.goes_on.set()
        assert (await refused).status_code == 400
    assert service.metrics.speculations["refused"] <= 1
    before = len(service.backend.requests)
    for _ in range(12):
        assert (await service.ask("Hi")).status_code == 200
    service.classifier.goes_on.clear()
    service.backend.began.clear()
    service.classifier.asked.clear()
    assert (await service.settled(service.ask("Hi"))).status_code == 200
    assert len(service.backend.requests) == before + 13
    assert service.metrics.speculations["kept"] >= 1


async def test_a_canary_changes_every_prompt_so_that_the_engine_waits() -> None:
    service = Speculating(prompt_canary="block")
    service.classifier.goes_on.set()
    assert (await service.ask()).status_code == 200
    assert service.metrics.speculations == {}
    assert len(service.backend.requests) == 1


@pytest.mark.parametrize("policy", ["refuse", "pass"])
async def test_a_check_that_fails_follows_the_policy(policy: str) -> None:
    service = Speculating(when_unavailable=policy)
    service.classifier.mode = "dead"
    answer = await service.settled(service.ask())
    assert answer.status_code == (503 if policy == "refuse" else 200)
    assert service.metrics.speculations == {"refused" if policy == "refuse" else "kept": 1}
    used = Usage((await service.entry())["input_tokens"], 0, 0)
    assert used.prompt_tokens == (0 if policy == "refuse" else 3)
