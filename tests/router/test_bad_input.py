"""Bad input: a clear error that names the field, and nobody else is harmed."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import InvalidRequestError
from router.openai.chat import ChatRequest
from router.openai.validation import parse
from tests.router.served import CONFIG, Served

GOOD: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
IMAGE = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"max_completion_tokens": -5}, "max_completion_tokens"),
        ({"seed": 2**70}, "seed"),
        ({"n": 129}, "n"),
        ({"stop": ["a"] * 33}, "stop"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop": ""}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream_options": {"other": True}}, "stream_options.other"),
        ({"model": 7}, "model"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": IMAGE}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "a\x00b"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "Hi", "mood": "good"}]}, "messages[0].mood"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
        ),
        ({"guided_json": {}, "guided_regex": "a"}, "guided_regex"),
        ({"response_format": {"type": "json_object"}, "guided_choice": ["a"]}, "response_format"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"profile": "no-such"}, "profile"),
        ({"logprobs": 1}, "logprobs"),
        ({"no_such_field": 1}, "no_such_field"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_field_is_named(served: Served, change: dict[str, Any], param: str) -> None:
    response = served.http.post("/v1/chat/completions", json=GOOD | change)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param or (param == "stop[0]" and error["param"] == "stop")
    assert served.backend.requests == []
    assert served.http.post("/v1/chat/completions", json=GOOD).status_code == 200


@pytest.mark.parametrize(
    "change", [{"n": 1}, {"presence_penalty": 0}, {"tools": []}, {"logprobs": False}, {"user": "u"}]
)
def test_neutral_values_of_unbuilt_fields_are_accepted(served: Served, change: dict[str, Any]) -> None:
    assert served.http.post("/v1/chat/completions", json=GOOD | change).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b'{"model": "fast", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "fast", "temperature": NaN}',
        b'{"model": "fast", "temperature": Infinity}',
        b'{"model": "fast", "seed": ' + b"9" * 5000 + b"}",
        b'{"model": ' + b"[" * 40_000 + b"]" * 40_000 + b"}",
        b'{"model": "fast", "messages": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
    ],
    ids=[
        "empty", "cut", "array", "string", "null", "not-utf8", "surrogate", "nan", "inf", "huge", "deep", "deep2",
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_a_400(served: Served, content: bytes) -> None:
    response = served.http.post("/v1/chat/completions", content=content)
    assert response.status_code == 400, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_a_body_over_the_limit_is_refused_by_its_length(served: Served) -> None:
    response = served.http.post("/v1/chat/completions", content=b"x" * (CONFIG.max_body_bytes + 1))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


def test_a_body_over_the_limit_without_a_length_is_refused_as_it_arrives(served: Served) -> None:
    chunks = (b"x" * 10_000 for _ in range(20))
    assert served.http.post("/v1/chat/completions", content=chunks).status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/gpt-4", 404, "model_not_found"),
    ],
)
def test_wrong_paths_and_methods_speak_openai_too(
    served: Served, method: str, path: str, status: int, code: str
) -> None:
    response = served.http.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code


def test_an_unknown_model_is_a_404_that_lists_what_there_is(served: Served) -> None:
    response = served.http.post("/v1/chat/completions", json=GOOD | {"model": "gpt-4"})
    assert response.status_code == 404
    assert response.json()["error"] | {"message": ""} == {
        "message": "",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert "balanced" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Basic sk-test", "missing_api_key"),
        ("Bearer sk-wrong", "invalid_api_key"),
        ("Bearer sk-testx", "invalid_api_key"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/models"])
def test_nobody_passes_without_a_key(served: Served, path: str, authorization: str, code: str) -> None:
    method = "GET" if path.endswith("models") else "POST"
    response = served.http.request(method, path, json=GOOD, headers={"authorization": authorization})
    assert response.status_code == 401
    assert response.json()["error"]["code"] == code
    assert response.headers["www-authenticate"] == "Bearer"


def test_too_many_prompts_are_refused(served: Served) -> None:
    body = {"model": "fast", "prompt": ["x"] * (CONFIG.max_prompts + 1)}
    response = served.http.post("/v1/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "prompt"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*ChatRequest.model_fields, "other"]), json_values, max_size=6))
def test_no_json_makes_the_parser_raise_anything_but_its_own_error(document: dict[str, Any]) -> None:
    with suppress(InvalidRequestError):
        parse(ChatRequest, json.dumps(document).encode())
