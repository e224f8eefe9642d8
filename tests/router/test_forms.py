"""The form of an answer reaches the engine from whatever field asks for it, and its errors come back by that name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from engine.api import GenerationRequest, Grammar, RequestError
from tests.router.backend import ScriptedBackend
from tests.router.served import Served

CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
DESCRIBED = {"name": "thing", "schema": SCHEMA, "strict": True}


@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Grammar.json_object()),
        ({"response_format": {"type": "json_schema", "json_schema": DESCRIBED}}, Grammar.json_schema(SCHEMA)),
        ({"guided_json": SCHEMA}, Grammar.json_schema(SCHEMA)),
        ({"guided_json": '{"type": "null"}'}, Grammar("json_schema", '{"type": "null"}')),
        ({"guided_regex": "a+"}, Grammar.regex("a+")),
        ({"guided_choice": ["a", "b"]}, Grammar.choice(["a", "b"])),
        ({"guided_grammar": "start: /a/"}, Grammar.lark("start: /a/")),
        ({"structured_outputs": {"json": SCHEMA}}, Grammar.json_schema(SCHEMA)),
        ({"structured_outputs": {"json_object": True}}, Grammar.json_object()),
        ({"structured_outputs": {"choice": ["a"]}}, Grammar.choice(["a"])),
        ({"structured_outputs": {"regex": "a"}}, Grammar.regex("a")),
        ({"structured_outputs": {"grammar": "start: /a/"}}, Grammar.lark("start: /a/")),
    ],
    ids=str,
)
def test_each_field_asks_for_its_form(served: Served, fields: dict[str, Any], grammar: Grammar | None) -> None:
    answer = served.http.post("/v1/chat/completions", json=CHAT | fields)

    assert answer.status_code == 200, answer.text
    assert served.backend.requests[0].sampling.grammar == grammar


def test_the_openai_client_asks_with_a_schema(served: Served) -> None:
    form: Any = {"type": "json_schema", "json_schema": DESCRIBED}

    served.openai.chat.completions.create(**CHAT, response_format=form)

    assert served.backend.requests[0].sampling.grammar == Grammar.json_schema(SCHEMA)


class RefusesGrammars(ScriptedBackend):
    """Refuses every grammar, as an engine does that cannot compile it."""

    def _words(self, request: GenerationRequest) -> Sequence[str]:
        grammar = request.sampling.grammar
        assert grammar is not None
        raise RequestError("The grammar cannot be used: no.", grammar.param, "invalid_grammar")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}}, "response_format"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"structured_outputs": {"grammar": "start: x"}}, "structured_outputs"),
    ],
)
def test_what_the_engine_cannot_compile_is_refused_by_the_field_that_asked(
    served: Served, fields: dict[str, Any], param: str
) -> None:
    served.backend = RefusesGrammars()

    answer = served.http.post("/v1/chat/completions", json=CHAT | fields)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, "invalid_grammar")
