"""The member ``moderation``: scores of the request and its answers, by OpenAI's own client and schema."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.router.guarded import CHAT, TEXT, Guarded

SPEC = Path(__file__).resolve().parents[3] / "shared" / "data" / "openai" / "openapi.json.gz"
ASKED = {"model": "omni-moderation-latest"}
OFF: dict[str, Any] = {
    "content": None,
    "content_answers": None,
    "structure": None,
    "injection": {"user": None, "documents": None},
}


def body(path: str, text: str) -> dict[str, Any]:
    system = {"role": "system", "content": "HARM is the operator's word"}
    return {"messages": [system, {"role": "user", "content": text}]} if path == CHAT else {"prompt": text}


def chunks_of(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def moderation_of(guarded: Guarded, path: str, text: str, stream: bool, **more: Any) -> dict[str, Any]:
    asked = {**body(path, text), "moderation": ASKED, "stream": stream, **more}
    answer = guarded.post(path, asked)
    assert answer.status_code == 200
    if not stream:
        return dict(answer.json()["moderation"])
    found = [chunk for chunk in chunks_of(answer.text) if "moderation" in chunk]
    assert len(found) == 1
    assert found[0]["choices"] == []
    return dict(found[0]["moderation"])


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("stream", [False, True])
def test_the_request_and_each_answer_have_results(guarded: Guarded, path: str, stream: bool) -> None:
    guarded.policies.set(**OFF)
    guarded.served.backend._words = lambda request: ["a bit of ", "HA", "RM"]  # type: ignore[method-assign]
    found = moderation_of(guarded, path, "hello", stream, n=2)

    assert [each["flagged"] for each in found["input"]["results"]] == [False]
    assert [each["flagged"] for each in found["output"]["results"]] == [True, True]
    assert found["output"]["model"] == "scripted-1"


def test_openais_client_and_schema_take_the_member(guarded: Guarded) -> None:
    answer = guarded.served.openai.chat.completions.create(
        model="fast", messages=[{"role": "user", "content": "hi"}], extra_body={"moderation": ASKED}
    )
    found = answer.to_dict()["moderation"]
    assert isinstance(found, dict)
    assert found["input"]["type"] == "moderation_results"
    if not SPEC.exists():
        pytest.skip("OpenAI's API description is not here")
    spec = json.loads(gzip.decompress(SPEC.read_bytes()))
    schema = {"$ref": "#/components/schemas/ChatCompletionModeration", "components": spec["components"]}
    jsonschema.validate(found, schema)


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_flagged_request_is_refused_where_it_wants_to_be(guarded: Guarded, path: str) -> None:
    guarded.policies.set(**OFF)
    asked = {**ASKED, "policy": {"input": {"mode": "block"}}}
    refused = guarded.post(path, {**body(path, "HARM"), "moderation": asked})
    passed = guarded.post(path, {**body(path, "hello"), "moderation": asked})

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter")
    assert passed.status_code == 200
    assert len(guarded.served.backend.requests) == 1


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("stream", [False, True])
def test_a_flagged_answer_is_replaced_where_the_request_wants_it(guarded: Guarded, path: str, stream: bool) -> None:
    guarded.policies.set(**OFF)
    guarded.served.backend._words = lambda request: ["some ", "HA", "RM"]  # type: ignore[method-assign]
    asked = {**ASKED, "policy": {"output": {"mode": "block"}}}
    answer = guarded.post(path, {**body(path, "hello"), "moderation": asked, "stream": stream})

    assert "some" not in answer.text
    assert '"content_filter"' in answer.text
    assert '"flagged": true' in answer.text or '"flagged":true' in answer.text


@pytest.mark.parametrize("side", ["input", "output"])
def test_without_the_classifier_the_member_says_so_or_the_request_fails(guarded: Guarded, side: str) -> None:
    guarded.policies.set(**OFF)
    guarded.classifier.mode = "dead"
    found = moderation_of(guarded, CHAT, "hello", stream=False)
    closed = guarded.post(CHAT, {**body(CHAT, "x"), "moderation": {**ASKED, "policy": {side: {"mode": "block"}}}})

    assert [found[each]["type"] for each in ("input", "output")] == ["error", "error"]
    assert (closed.status_code, closed.json()["error"]["code"]) == (503, "safety_unavailable")


@pytest.mark.parametrize(
    ("member", "status", "param"),
    [
        ({"model": "gpt-4"}, 404, "moderation.model"),
        ({}, 400, "moderation.model"),
        ({**ASKED, "policy": {"input": {"mode": "drop"}}}, 400, "moderation.policy.input.mode"),
        (True, 400, "moderation"),
    ],
)
def test_a_wrong_member_is_named(guarded: Guarded, member: Any, status: int, param: str) -> None:
    guarded.policies.set(**OFF)
    answer = guarded.post(CHAT, {**body(CHAT, "x"), "moderation": member})

    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
