"""What follows from a guard's verdict on an answer: what the client gets, streamed or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from engine.api import Conversation, GenerationRequest
from safety.api import Scores
from tests.router.engines import EngineBackend
from tests.router.guarded import CHAT, TEXT, Guarded, texts_of
from tests.router.served import KEY, OTHER_KEY


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_halted_before_a_blocked_phrase(guarded: Guarded, path: str, stream: bool) -> None:
    guarded.policies.set(phrases={"block": ["wörld"]}, refusal="Not this.", content_answers=None)
    body = {"messages": [{"role": "user", "content": "x"}]} if path == CHAT else {"prompt": "x"}
    answer = guarded.post(path, {**body, "stream": stream})

    [(text, reason)] = texts_of(answer, stream).values()
    assert reason == "content_filter"
    assert text.endswith("Hello, Not this.")
    assert guarded.entries()[0]["safety"]["decision"] == "blocked"


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["hold", "beside"])
def test_without_a_classifier_an_answer_ends_or_goes_on(guarded: Guarded, mode: str, stream: bool, path: str) -> None:
    off = {"content": None, "injection": {"user": None, "documents": None}, "stream": mode}
    guarded.policies.set("acme", when_unavailable="refuse", **off)
    guarded.policies.set("other", when_unavailable="pass", **off)
    guarded.classifier.mode = "dead"
    body = {"messages": [{"role": "user", "content": "x"}]} if path == CHAT else {"prompt": "x"}
    closed, opened = (guarded.post(path, {**body, "stream": stream}, key) for key in (KEY, OTHER_KEY))

    assert [reason for _, reason in texts_of(closed, stream).values()] == ["content_filter"]
    assert [reason for _, reason in texts_of(opened, stream).values()] == ["stop"]
    assert [entry["safety"]["decision"] for entry in guarded.entries()] == ["blocked", "unscanned"]
    if not stream:
        assert [each.headers["x-manta-safety"] for each in (closed, opened)] == ["blocked", "unscanned"]


@pytest.mark.parametrize("stream", [False, True])
def test_personal_data_is_redacted_in_answers(guarded: Guarded, stream: bool) -> None:
    guarded.policies.set(pii={"answers": "redact"}, content_answers=None)
    answer = guarded.post(TEXT, {"prompt": "I am bob@acme.com", "stream": stream})

    [(text, _)] = texts_of(answer, stream).values()
    assert text == "<I am <EMAIL_ADDRESS>>Hello, wörld! 🎉"
    assert guarded.entries()[0]["safety"]["decision"] == "redacted"
    assert stream or answer.headers["x-manta-safety"] == "redacted"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_value_that_the_request_begins_and_the_answer_ends_is_found(
    guarded: Guarded, path: str, stream: bool
) -> None:
    guarded.policies.set(pii={"answers": "redact"}, content_answers=None)
    guarded.served.backend._words = lambda request: ["me.com", " is ", "it"]  # type: ignore[method-assign]
    begun = "Her address: bob@ac"
    message = {"role": "assistant", "content": begun}
    chat: dict[str, Any] = {"messages": [message], "continue_final_message": True, "add_generation_prompt": False}
    answer = guarded.post(path, {**(chat if path == CHAT else {"prompt": begun}), "stream": stream})

    [(text, reason)] = texts_of(answer, stream).values()
    assert (text, reason) == ("<EMAIL_ADDRESS> is it", "stop")


@pytest.mark.parametrize("stream", [False, True])
def test_a_value_that_one_of_several_prompts_begins_is_found_in_its_answer(guarded: Guarded, stream: bool) -> None:
    guarded.policies.set(pii={"answers": "redact"}, content_answers=None)
    guarded.served.backend._words = lambda request: ["me.com", " is ", "it"]  # type: ignore[method-assign]
    answer = guarded.post(TEXT, {"prompt": ["The site of", "Her address: bob@ac"], "stream": stream})

    texts = [text for _, (text, _) in sorted(texts_of(answer, stream).items())]
    assert texts == ["me.com is it", "<EMAIL_ADDRESS> is it"]


@pytest.mark.parametrize(
    ("halts", "ended"), [("choice", ["content_filter", "stop"]), ("request", ["content_filter"] * 2)]
)
def test_a_verdict_ends_its_choice_or_the_request(guarded: Guarded, halts: str, ended: list[str]) -> None:
    guarded.policies.set(halts=halts, phrases={"block": ["1hello"]}, content_answers=None)
    guarded.served.backend._words = lambda request: ["hello", " ", "you"]  # type: ignore[method-assign]
    answer = guarded.post(TEXT, {"prompt": "x", "n": 2})

    assert sorted(reason for _, reason in texts_of(answer, stream=False).values()) == ended


@pytest.mark.parametrize(
    ("listed", "banned"),
    [
        ({"block": ["天安门", "bomb", "make a bomb", "ｶﾞ", "天 安"]}, ("天安门",)),
        ({"block": ["天安门"], "allow": ["天安门广场"]}, ()),
        ({"block": ["bomb"]}, ()),
    ],
)
def test_the_engine_leaves_out_the_phrases_that_it_can_leave_out_exactly(
    guarded: Guarded, listed: dict[str, Any], banned: tuple[str, ...]
) -> None:
    guarded.policies.set(phrases=listed, content_answers=None)
    guarded.post(TEXT, {"prompt": "x", "bad_words": ["own"]})
    guarded.post(TEXT, {"prompt": "x", "guided_choice": ["a", "b"]})

    free, formed = guarded.served.backend.requests
    assert free.sampling.bad_words == ("own", *banned)
    assert formed.sampling.bad_words == ()


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_with_the_canary_of_its_prompt_is_halted(guarded: Guarded, stream: bool) -> None:
    guarded.policies.set(prompt_canary="block", content_answers=None, refusal="Not this.")
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    tokens: list[str] = []

    def words(request: GenerationRequest) -> list[str]:
        assert isinstance(request.prompt, Conversation)
        system = request.prompt.messages[0].content
        tokens.append(system.split()[-1])
        return ["It is ", *(f"{letter} " for letter in tokens[-1].upper()), "indeed"]

    guarded.served.backend._words = words  # type: ignore[method-assign]
    answer = guarded.post(CHAT, {"messages": messages, "stream": stream})

    assert texts_of(answer, stream)[0] == ("It is Not this.", "content_filter")
    assert guarded.post(CHAT, {"messages": messages}).status_code == 200
    assert len(set(tokens)) == 1  # the prefix stays in the cache


def test_an_answer_that_repeats_the_system_prompt_is_halted(guarded: Guarded) -> None:
    guarded.policies.set(prompt_leak="block", content_answers=None, refusal="Not this.")
    secret = "The vault of Ravenholm opens with seven silver keys under a winter moon"
    messages = [{"role": "system", "content": secret}, {"role": "user", "content": "Hi"}]
    backend = guarded.served.backend
    backend._words = lambda request: [f"{word} " for word in secret.split()]  # type: ignore[method-assign]
    answer = guarded.post(CHAT, {"messages": messages})

    assert texts_of(answer, stream=False)[0][1] == "content_filter"
    assert "Ravenholm opens with seven silver" not in answer.text


@pytest.mark.parametrize("mode", ["hold", "beside"])
def test_a_whole_answer_has_no_text_that_its_checks_have_flagged(
    guarded: Guarded, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = {"content": None, "structure": None, "injection": {"user": None, "documents": None}}
    guarded.policies.set("acme", stream=mode, refusal="Not this.", deadline_s=30, **off)
    classify = guarded.classifier.classify

    async def slowly(texts: Sequence[str]) -> Sequence[Scores]:
        await asyncio.sleep(0.05)  # all of the answer is generated meanwhile
        return await classify(texts)

    monkeypatch.setattr(guarded.classifier, "classify", slowly)
    answer = guarded.post(TEXT, {"prompt": "HARM"})

    assert texts_of(answer, stream=False) == {0: ("Not this.", "content_filter")}


def test_a_number_that_is_redacted_leaves_a_template_variable_json(guarded: Guarded) -> None:
    guarded.policies.set(pii={"requests": "redact"}, content_answers=None)
    guarded.ask("x", chat_template_kwargs={"card": 4111111111111111})

    prompt = guarded.served.backend.requests[0].prompt
    assert isinstance(prompt, Conversation)
    assert [(name, json.loads(value)) for name, value in prompt.template_kwargs] == [("card", "<CREDIT_CARD>")]


@pytest.mark.parametrize("stream", [False, True])
def test_a_search_that_finds_fewer_answers_than_were_asked_for_ends_in_time(
    guarded: Guarded, backend: EngineBackend, stream: bool
) -> None:
    guarded.served.backend = backend  # type: ignore[assignment]
    asked = {"prompt": "aaa", "n": 4, "use_beam_search": True, "guided_choice": ["yes"], "stream": stream}
    more = {"stream_options": {"include_usage": True}} if stream else {}
    answer = guarded.post(TEXT, asked | more)

    assert answer.status_code == 200, answer.text
    if stream:
        *frames, done = (frame.removeprefix("data: ") for frame in answer.text.split("\n\n") if frame)
        assert done == "[DONE]"
        usage = json.loads(frames[-1])["usage"]
    else:
        usage = answer.json()["usage"]
    assert usage["completion_tokens"] > 0
    assert guarded.entries()[-1]["output_tokens"] == usage["completion_tokens"]
