"""/v1/moderations, through OpenAI's own client and against OpenAI's own schema."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from safety.check_policies import ContentPolicy
from tests.router.guarded import Guarded
from tests.router.served import KEY, OTHER_KEY, Served

SPEC = Path(__file__).resolve().parents[3] / "shared" / "data" / "openai" / "openapi.json.gz"
PATH = "/v1/moderations"


@pytest.mark.parametrize(
    ("texts", "flagged"),
    [
        ("hello", [False]),
        ("HARM", [True]),
        (["hello", "HARM", "ATTACK"], [False, True, False]),
        ([{"type": "text", "text": "HA"}, {"type": "text", "text": "RM"}], [True]),
        ([""], [False]),
    ],
)
def test_each_text_has_a_result(guarded: Guarded, texts: Any, flagged: list[bool]) -> None:
    answer = guarded.served.openai.moderations.create(input=texts, model="omni-moderation-latest")

    assert answer.model == "scripted-1"
    assert [result.flagged for result in answer.results] == flagged
    assert [result.categories.violence for result in answer.results] == flagged
    assert all(result.category_applied_input_types.hate == ["text"] for result in answer.results)


def test_an_injection_is_a_finding_of_its_own(guarded: Guarded) -> None:
    [result] = guarded.post(PATH, {"input": "ATTACK", "model": "scripted-1"}).json()["results"]

    assert not result["flagged"]
    assert result["injection"] == {"flagged": True, "score": 0.99}


@pytest.mark.skipif(not SPEC.exists(), reason=f"OpenAI's specification is not at {SPEC}")
def test_the_response_follows_openais_schema(guarded: Guarded) -> None:
    spec = json.loads(gzip.decompress(SPEC.read_bytes()))
    answer = guarded.post(PATH, {"input": ["HARM", "fine"], "model": "text-moderation-stable"}).json()

    jsonschema.validate(
        answer, {**spec["components"]["schemas"]["CreateModerationResponse"], "components": spec["components"]}
    )


def test_the_tenants_thresholds_decide(guarded: Guarded) -> None:
    guarded.policies.set("other", content=ContentPolicy(block=0.99, review=None).model_dump())
    flags = [
        guarded.post(PATH, {"input": "HARM", "model": None}, key).json()["results"][0]["flagged"]
        for key in (KEY, OTHER_KEY)
    ]

    assert flags == [True, False]


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"input": []}, 400, "invalid_value", "input"),
        ({"input": 1}, 400, "invalid_value", "input"),
        ({"input": ["a", 1]}, 400, "invalid_value", "input[1]"),
        ({"input": ["a"] * 257}, 400, "invalid_value", "input"),
        ({"input": [{"type": "image_url", "image_url": {"url": "data:"}}]}, 400, "invalid_value", "input[0].type"),
        ({}, 400, "missing_required_parameter", "input"),
        ({"input": "a", "model": "gpt-5"}, 404, "model_not_found", "model"),
        ({"input": "a", "stream": True}, 400, "unknown_parameter", "stream"),
    ],
)
def test_a_bad_request_is_refused_by_its_field(
    guarded: Guarded, body: dict[str, Any], status: int, code: str, field: str
) -> None:
    answer = guarded.served.http.post(PATH, json=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["param"].startswith(field)


@pytest.mark.parametrize("action", ["block", "review"])
@pytest.mark.parametrize(
    ("texts", "field"),
    [
        ("x" * 21, "input"),
        (["x" * 10, "x" * 11], "input[1]"),
        ([{"type": "text", "text": "x" * 11}, {"type": "text", "text": "x" * 10}], "input"),
    ],
)
def test_the_policys_limit_on_characters_holds(guarded: Guarded, texts: Any, field: str, action: str) -> None:
    guarded.policies.set("acme", sizes={"max_characters": 20, "action": action})
    within = guarded.post(PATH, {"input": ["x" * 10, "x" * 10], "model": None})
    guarded.classifier.texts.clear()
    answer = guarded.post(PATH, {"input": texts, "model": None})

    assert within.status_code == 200
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "string_above_max_length", field)
    assert not guarded.classifier.texts, "what is refused is not read"


@pytest.mark.parametrize("mode", ["dead", "slow", "nonsense", "short"])
def test_a_classifier_that_does_not_answer_is_a_503(guarded: Guarded, mode: str) -> None:
    guarded.classifier.mode = mode
    with pytest.raises(openai.InternalServerError) as error:
        guarded.served.openai.moderations.create(input="hello")

    assert (error.value.status_code, error.value.code) == (503, "safety_unavailable")


def test_it_needs_a_key_counts_as_a_request_and_costs_no_tokens(guarded: Guarded) -> None:
    assert (
        guarded.served.http.post(PATH, json={"input": "a"}, headers={"authorization": "Bearer no"}).status_code == 401
    )
    assert guarded.served.http.get(PATH).status_code == 405
    guarded.post(PATH, {"input": "HARM", "model": None})

    [entry] = guarded.entries()
    assert (entry["endpoint"], entry["tier"], entry["outcome"]) == (PATH, "moderation", "finished")
    assert (entry["input_tokens"], entry["cost"]) == (0, 0)


def test_without_a_classifier_there_is_no_moderation(served: Served) -> None:
    answer = served.http.post(PATH, json={"input": "hello"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "moderation_not_configured")
