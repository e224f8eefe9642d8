"""What a well-formed request gets, streamed and not, by the real client and on the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.api import Conversation, FinishReason, Message, Priority
from tests.router.backend import WORDS
from tests.router.served import KEY, OTHER_KEY, Served

TEXT = "".join(WORDS)
HELLO: list[Any] = [{"role": "user", "content": "Hi"}]


def frames(text: str) -> list[Any]:
    """The parsed frames of an event stream; [DONE] stays a string."""
    assert text.endswith("\n\n")
    bodies = [frame.removeprefix("data: ") for frame in text.split("\n\n") if frame]
    return [body if body == "[DONE]" else json.loads(body) for body in bodies]


def test_a_chat_answer_reads_as_openais(served: Served) -> None:
    answer = served.openai.chat.completions.create(model="fast", messages=HELLO)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 5, 8)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 1


def test_the_streamed_text_is_the_whole_text(served: Served) -> None:
    chunks = list(served.openai.chat.completions.create(model="fast", messages=HELLO, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == TEXT
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("include_usage", [True, False])
def test_usage_comes_last_and_only_when_asked_for(served: Served, include_usage: bool) -> None:
    body = {"model": "fast", "messages": HELLO, "stream": True, "stream_options": {"include_usage": include_usage}}
    response = served.http.post("/v1/chat/completions", json=body)
    *chunks, done = frames(response.text)
    assert done == "[DONE]"
    assert response.headers["content-type"].startswith("text/event-stream")
    if include_usage:
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"]["total_tokens"] == 8
        assert all(chunk["usage"] is None for chunk in chunks[:-1])
    else:
        assert all("usage" not in chunk for chunk in chunks)


def test_every_delta_is_a_chunk_of_its_own(served: Served) -> None:
    response = served.http.post("/v1/chat/completions", json={"model": "fast", "messages": HELLO, "stream": True})
    texts = [c["choices"][0]["delta"].get("content") for c in frames(response.text)[:-1]]
    assert [text for text in texts if text] == list(WORDS)


@pytest.mark.parametrize("stream", [True, False])
def test_several_prompts_become_choices_in_order(served: Served, stream: bool) -> None:
    body = {"model": "fast", "prompt": ["one", "two", "three"], "max_tokens": 5, "stream": stream}
    response = served.http.post("/v1/completions", json=body)
    if stream:
        texts = ["", "", ""]
        for chunk in frames(response.text)[:-1]:
            for choice in chunk["choices"]:
                texts[choice["index"]] += choice["text"]
    else:
        texts = [choice["text"] for choice in response.json()["choices"]]
        assert response.json()["usage"]["completion_tokens"] == 15
    assert texts == [f"<{name}>{TEXT}" for name in ("one", "two", "three")]


def test_the_client_completes_text(served: Served) -> None:
    answer = served.openai.completions.create(model="balanced", prompt="Once")
    assert answer.choices[0].text == f"<Once>{TEXT}"
    assert served.backend.requests[0].sampling.max_tokens == 16
    assert served.backend.tiers_used == ["balanced"]


@pytest.mark.parametrize(
    ("prompt", "expected"), [("hi", ["hi"]), ([1, 2], [(1, 2)]), ([[1], [2, 3]], [(1,), (2, 3)]), (["a"], ["a"])]
)
def test_prompts_arrive_as_text_or_tokens(served: Served, prompt: Any, expected: list[Any]) -> None:
    assert served.http.post("/v1/completions", json={"model": "fast", "prompt": prompt}).status_code == 200
    assert sorted(map(str, (r.prompt for r in served.backend.requests))) == sorted(map(str, expected))


def test_text_parts_are_joined_and_roles_kept(served: Served) -> None:
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    assert served.http.post("/v1/chat/completions", json={"model": "fast", "messages": messages}).status_code == 200
    assert served.backend.requests[0].prompt == Conversation((Message("developer", "Be kind."), Message("user", "ab")))


def test_sampling_fields_reach_the_engine(served: Served) -> None:
    body = {
        "model": "fast",
        "messages": HELLO,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "seed": 11,
        "stop": ["x", "y"],
        "max_completion_tokens": 9,
        "ignore_eos": True,
        "stop_token_ids": [3],
    }
    assert served.http.post("/v1/chat/completions", json=body).status_code == 200
    sampling = served.backend.requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.5, 0.9, 7, 11)
    assert (sampling.stop, sampling.max_tokens) == (("x", "y"), 9)
    assert (sampling.ignore_eos, sampling.stop_token_ids) == (True, (3,))


@pytest.mark.parametrize(("key", "tenant"), [(KEY, "acme"), (OTHER_KEY, "other")])
def test_the_prefix_cache_is_salted_with_the_tenant(served: Served, key: str, tenant: str) -> None:
    served.http.post(
        "/v1/chat/completions",
        json={"model": "fast", "messages": HELLO},
        headers={"authorization": f"Bearer {key}"},
    )
    assert served.backend.requests[0].cache_salt == served.backend.requests[0].tenant == tenant


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (None, Priority.STANDARD),
        (0, Priority.STANDARD),
        (-7, Priority.INTERACTIVE),
        (3, Priority.BATCH),
    ],
)
def test_the_sign_of_the_priority_is_the_class(served: Served, asked: int | None, given: Priority) -> None:
    served.http.post("/v1/chat/completions", json={"model": "fast", "messages": HELLO, "priority": asked})
    assert served.backend.requests[0].priority is given


@pytest.mark.parametrize(("field", "value"), [("priority", "high"), ("priority", 0.5), ("deadline_s", 0)])
def test_a_wrong_class_or_deadline_is_refused_by_name(served: Served, field: str, value: object) -> None:
    response = served.http.post("/v1/chat/completions", json={"model": "fast", "messages": HELLO, field: value})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == field


def test_a_length_stop_is_reported(served: Served) -> None:
    served.backend.outcome = FinishReason.LENGTH
    answer = served.openai.chat.completions.create(model="fast", messages=HELLO)
    assert answer.choices[0].finish_reason == "length"


def test_models_are_listed_and_shown(served: Served) -> None:
    assert [m.id for m in served.openai.models.list()] == ["fast", "balanced", "frontier", "auto"]
    assert served.openai.models.retrieve("auto").id == "auto"


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_health_needs_every_tier_and_no_key(served: Served, ready: bool, status: int) -> None:
    served.backend.ready = ready
    response = served.http.get("/healthz", headers={"authorization": ""})
    assert response.status_code == status
    assert response.json()["tiers"]["fast"]["ready"] is ready


def test_a_tier_that_may_be_at_zero_does_not_keep_the_service_from_being_ready(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.backend, "scales_to_zero", True)
    monkeypatch.setattr(served.backend, "ready", False)
    response = served.http.get("/healthz", headers={"authorization": ""})
    assert response.status_code == 200
    assert response.json()["tiers"]["fast"] == {"ready": True, "replicas": 0}


@pytest.mark.parametrize("offered", ["abc-123", "trace:0/1=x"])
def test_a_sane_request_id_comes_back(served: Served, offered: str) -> None:
    response = served.http.get("/v1/models", headers={"x-request-id": offered})
    assert response.headers["x-request-id"] == offered


@pytest.mark.parametrize("offered", [None, "", "x" * 200, "sp ace", "<script>"])
def test_any_other_request_id_is_replaced(served: Served, offered: str | None) -> None:
    headers = {} if offered is None else {"x-request-id": offered}
    response = served.http.get("/nowhere", headers=headers)
    assert response.headers["x-request-id"].startswith("req_")


def test_clients_that_choose_one_id_do_not_meet_in_the_engine(served: Served) -> None:
    for _ in range(2):
        served.http.post(
            "/v1/chat/completions", json={"model": "fast", "messages": HELLO}, headers={"x-request-id": "same"}
        )
    first, second = served.backend.requests
    assert first.request_id != second.request_id
