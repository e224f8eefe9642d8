"""What the router writes, held against OpenAI's own schemas: answers, every chunk of a stream, and errors.

test_openapi.py sends whatever the specification allows, most of which is refused as not built yet, and the
specification describes no refusals. Here every request is one that the router takes, or one whose error is known.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.api import OverloadedError
from router.ports.tier_backend import TierUnavailableError
from tests.router.backend import ScriptedBackend
from tests.router.openai_spec import SPEC
from tests.router.served import CONFIG, Served

Check = Callable[[str, Any], None]

text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=20)
content = text | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": text}), min_size=1, max_size=3)
roles = st.sampled_from(["developer", "system", "user", "assistant"])
sampling: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.none() | st.floats(0, 2),
    "top_p": st.none() | st.floats(0, 1),
    "stop": st.none() | text | st.lists(text, min_size=1, max_size=4),
    "seed": st.none() | st.integers(-(2**63), 2**63 - 1),
    "max_tokens": st.none() | st.integers(1, 100),
    "n": st.none() | st.just(1),
    "presence_penalty": st.none() | st.floats(-2, 2),
    "user": st.none() | text,
}
chats = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["fast", "balanced", "frontier", "auto"]),
        "messages": st.lists(st.fixed_dictionaries({"role": roles, "content": content}), min_size=1, max_size=3),
        "stream": st.booleans(),
    },
    optional=sampling
    | {
        "max_completion_tokens": st.none() | st.integers(1, 100),
        "metadata": st.none() | st.dictionaries(text, text, max_size=3),
        "store": st.none() | st.booleans(),
        "verbosity": st.sampled_from([None, "low", "medium", "high"]),
        "reasoning_effort": st.sampled_from([None, "none", "minimal", "low", "medium", "high", "xhigh", "max"]),
        "prediction": st.none() | st.fixed_dictionaries({"type": st.just("content"), "content": content}),
        "prompt_cache_retention": st.sampled_from([None, "in_memory", "24h"]),
        "response_format": st.none() | st.just({"type": "text"}),
        "service_tier": st.sampled_from([None, "auto", "default", "flex", "priority"]),
    },
)
tokens = st.lists(st.integers(0, 1000), min_size=1, max_size=5)
prompts = text | st.lists(text, min_size=1, max_size=3) | tokens | st.lists(tokens, min_size=1, max_size=3)
texts = st.fixed_dictionaries(
    {"model": st.sampled_from(["fast", "auto"]), "prompt": prompts, "stream": st.booleans()},
    optional=sampling | {"best_of": st.none() | st.just(1), "echo": st.sampled_from([None, False])},
)
options = st.fixed_dictionaries({"include_usage": st.booleans(), "include_obfuscation": st.just(False)})
thorough = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session")
def check() -> Check:
    """Validates a document against a named schema of the specification."""
    if not SPEC.exists():
        pytest.skip(f"OpenAI's specification is not at {SPEC}")
    components = _nullable(json.loads(gzip.decompress(SPEC.read_bytes()))["components"])

    def validate(schema: str, document: Any) -> None:
        root = {"$ref": f"#/components/schemas/{schema}", "components": components}
        jsonschema.Draft202012Validator(root).validate(document)

    return validate


def _nullable(schema: Any) -> Any:
    """``nullable: true`` says nothing in OpenAPI 3.1, but the specification means it and its own examples need it."""
    if isinstance(schema, list):
        return [_nullable(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _nullable(value) for key, value in schema.items() if key != "nullable"}
    return {"anyOf": [inner, {"type": "null"}]} if schema.get("nullable") is True else inner


def _chunks(stream: str) -> list[Any]:
    *chunks, done = [frame.removeprefix("data: ") for frame in stream.split("\n\n") if frame]
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def test_the_check_can_fail(check: Check) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check("CreateChatCompletionResponse", {"id": "x", "choices": []})
    with pytest.raises(jsonschema.ValidationError):
        check("ErrorResponse", {"error": {"message": "without the other keys"}})


@given(body=chats, stream_options=options)
@thorough
def test_chat_answers_and_chunks_are_as_described(
    served: Served, check: Check, body: dict[str, Any], stream_options: dict[str, Any]
) -> None:
    body = body | ({"stream_options": stream_options} if body["stream"] else {})
    response = served.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    if not body["stream"]:
        return check("CreateChatCompletionResponse", response.json())
    for chunk in _chunks(response.text):
        check("CreateChatCompletionStreamResponse", chunk)
    return None


@given(body=texts, stream_options=options)
@thorough
def test_text_completions_are_as_described(
    served: Served, check: Check, body: dict[str, Any], stream_options: dict[str, Any]
) -> None:
    body = body | ({"stream_options": stream_options} if body["stream"] else {})
    response = served.http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    if not body["stream"]:
        return check("CreateCompletionResponse", response.json())
    for chunk in _chunks(response.text):
        # The schema is that of a whole answer, where each choice has ended; in the stream most have not.
        for choice in chunk["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        if chunk.get("usage", ...) is None:
            del chunk["usage"]
        check("CreateCompletionResponse", chunk)
    return None


def test_models_are_as_described(served: Served, check: Check) -> None:
    check("ListModelsResponse", served.http.get("/v1/models").json())
    check("Model", served.http.get("/v1/models/fast").json())


@pytest.mark.parametrize(
    ("method", "path", "change", "status"),
    [
        ("POST", "/v1/chat/completions", {"temperature": 9}, 400),
        ("POST", "/v1/chat/completions", {"model": "gpt-9"}, 404),
        ("POST", "/v1/chat/completions", {"user": "x" * CONFIG.max_body_bytes}, 413),
        ("PUT", "/v1/chat/completions", {}, 405),
        ("POST", "/v1/nowhere", {}, 404),
    ],
)
def test_refusals_are_as_described(
    served: Served, check: Check, method: str, path: str, change: dict[str, Any], status: int
) -> None:
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]} | change
    response = served.http.request(method, path, json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    check("ErrorResponse", response.json())


@pytest.mark.parametrize(
    ("fault", "status"),
    [(OverloadedError("full"), 429), (TierUnavailableError("nobody"), 503), (RuntimeError("bug"), 500)],
    ids=["429", "503", "500"],
)
def test_faults_are_as_described(served: Served, check: Check, fault: Exception, status: int) -> None:
    served.backend = ScriptedBackend(fault=fault, ready=not isinstance(fault, TierUnavailableError))
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
    response = served.http.post("/v1/chat/completions", json=body)
    assert response.status_code == status
    check("ErrorResponse", response.json())
    served.backend.fault_at = 2
    frames = served.http.post("/v1/chat/completions", json=body | {"stream": True}).text.split("\n\n")
    check("ErrorResponse", json.loads(frames[-2].removeprefix("data: ")))


def test_no_key_is_as_described(served: Served, check: Check) -> None:
    response = served.http.get("/v1/models", headers={"authorization": ""})
    assert response.status_code == 401
    check("ErrorResponse", response.json())
