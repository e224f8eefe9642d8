"""Tools together with a form of the answer, and tools whose schemas cannot be enforced as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import TOOL_CALL_END, TOOL_CALL_START, Grammar, RequestError
from engine.tokenizer import Tokenizer
from router.answer_events import Text, ToolCallStart
from router.errors import InvalidRequestError
from router.generation.tool_parser import ToolCallParser
from router.openai.chat import ChatEndpoint
from router.tool_grammar import Function, ToolUse
from tests.router.conftest import FAST
from tests.router.served import Served

CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "The weather in Rome?"}]}
ZONE = {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"]}
ANSWER = {"type": "object", "properties": {"note": {"type": "string"}}, "required": ["note"]}
CALL = f'{TOOL_CALL_START}\n{{"name": "get_time", "arguments": {{"zone": "UTC"}}}}\n{TOOL_CALL_END}'
SCHEMA_FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": ANSWER}}


def tool(name: str, parameters: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


TOOLS = [tool("get_time", ZONE)]


class Allowed:
    """Whether a text is a whole answer, by the grammar of a ToolUse and the tokenizer of a real model."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer.from_directory(FAST)
        self.grammars = self._tokenizer.grammar_compiler(4096)

    def __call__(self, use: ToolUse, text: str) -> bool:
        matcher = self.grammars.compile(use.grammar, 0).matcher
        tokens = self._tokenizer.encode(text)
        if matcher.validate_tokens(tokens) < len(tokens):
            return False
        return bool(matcher.consume_tokens(tokens) and matcher.is_accepting())


def test_a_tool_that_is_not_strict_does_without_what_cannot_be_followed(
    allows: Allowed,
) -> None:
    zone = {"pattern": "(?=a)b", "type": "string"}
    schema = {"type": "object", "properties": {"zone": zone, "at": {"$ref": "http://x/y"}}, "required": ["zone"]}
    use = ToolUse([Function("get_time", schema, strict=False)], required=True, parallel=False)
    strict = ToolUse([Function("get_time", schema)], required=True, parallel=False)

    assert allows(use, CALL)
    assert not allows(use, CALL.replace('"UTC"', "5"))
    with pytest.raises(RequestError, match="cannot be used"):
        allows(strict, CALL)


@pytest.fixture(scope="module")
def allows() -> Iterator[Allowed]:
    made = Allowed()
    yield made
    made.grammars.close()


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        (Grammar.json_schema(ANSWER), '{"note": "a <tool_call> b"}', '{"note": 1}'),
        (Grammar("json_schema", json.dumps(ANSWER)), '{"note": "a"}', "a"),
        (Grammar.json_schema(True), "[1, null]", "a"),
        (Grammar.json_object(), '{"b": [1]}', "[1]"),
        (Grammar.regex(r"\d+/\d+"), "12/34", "12"),
        (Grammar.regex(r"\d+\/[/\d]"), "12//", "12/a"),
        (Grammar.regex("a\nb|c"), "a\nb", "ab"),
        (Grammar.regex("a\\\nb"), "a\nb", "ab"),
        (Grammar.regex(r"a\\"), "a\\", "a"),
        (Grammar.choice(["yes", "n/o", "a|b", "ü (x)"]), "ü (x)", "a"),
        (Grammar.choice(["yes", TOOL_CALL_START]), "yes", TOOL_CALL_START),
    ],
    ids=str,
)
def test_an_answer_is_calls_or_text_of_the_form(allows: Allowed, form: Grammar, right: str, wrong: str) -> None:
    functions = [Function("get_time", ZONE)]
    free, required = ToolUse(functions, False, True, form), ToolUse(functions, True, True, form)

    assert allows(free, right)
    assert allows(free, CALL)
    assert allows(free, f"{CALL}\n{CALL}")
    for each in (wrong, f"{right}{CALL}", f"{right}\n{CALL}", f"{CALL} {right}"):
        assert not allows(free, each)
    assert allows(required, CALL)
    assert not allows(required, right)


def test_text_of_any_pattern_does_not_begin_as_a_call_does(allows: Allowed) -> None:
    use = ToolUse([Function("get_time", ZONE)], False, True, Grammar.regex(r"(.|\n)*"))

    assert allows(use, "<tool_cal")
    assert allows(use, f"a {CALL}")
    assert not allows(use, f"{TOOL_CALL_START} a")


CHOICES = ["yes", "n/o", "a|b", "ü (x)", "tab\t", "line\nline", "\\", "[a-z]", "🎉", " ,:;=_-!%@'\"#~&"]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_means_itself(allows: Allowed, choice: str) -> None:
    use = ToolUse([Function("get_time", ZONE)], False, True, Grammar.choice(["other", choice]))

    assert allows(use, choice)
    assert not allows(use, choice + "x")


def test_a_lark_grammar_is_no_form_beside_calls() -> None:
    with pytest.raises(ValueError, match="Lark"):
        _ = ToolUse([Function("f")], False, True, Grammar.lark("start: /a/")).grammar


@given(st.text(alphabet='<tool_call>\n{}"a', max_size=40), st.integers(1, 9))
def test_text_of_a_form_has_no_calls_unless_it_begins_with_one(text: str, step: int) -> None:
    for said in (text, f'{{"note": "{text}{CALL}"}}'):
        parser = ToolCallParser(text_before_calls=False)
        pieces = [piece for place in range(0, len(said), step) for piece in parser.push(said[place : place + step])]
        pieces += parser.finish()
        if not said.startswith(TOOL_CALL_START):
            assert "".join(piece.text for piece in pieces if isinstance(piece, Text)) == said
            assert not parser.called


@pytest.mark.parametrize("step", [1, 5, 500])
def test_an_answer_that_begins_with_a_call_has_it(step: int) -> None:
    parser = ToolCallParser(text_before_calls=False)
    pieces = [piece for place in range(0, len(CALL), step) for piece in parser.push(CALL[place : place + step])]

    assert [piece.name for piece in pieces if isinstance(piece, ToolCallStart)] == ["get_time"]
    assert parser.called


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": SCHEMA_FORM},
        {"response_format": {"type": "json_object"}},
        {"guided_json": json.dumps(ANSWER)},
        {"guided_regex": "(yes|no)[!]*"},
        {"guided_choice": ["yes", "no"]},
        {"structured_outputs": {"choice": ["yes", "no"]}},
    ],
    ids=str,
)
@pytest.mark.parametrize("required", [False, True])
def test_answers_are_as_asked(real: Served, fields: dict[str, Any], required: bool) -> None:
    choice = {"tool_choice": "required"} if required else {}
    for seed in range(3):
        asked = CHAT | fields | choice | {"tools": TOOLS, "temperature": 2, "seed": seed, "max_tokens": 300}
        answer = real.http.post("/v1/chat/completions", json=asked)
        assert answer.status_code == 200, answer.text
        (answered,) = answer.json()["choices"]
        message = answered["message"]
        if required:
            assert message["tool_calls"]
        if answered["finish_reason"] == "length":
            continue
        for call in message.get("tool_calls", ()):
            jsonschema.validate(json.loads(call["function"]["arguments"]), ZONE)
        if not message.get("tool_calls"):
            _check(fields, message["content"])


def _check(fields: dict[str, Any], content: str) -> None:
    if "response_format" in fields or "guided_json" in fields:
        schema = {"type": "object"} if fields.get("response_format", {}).get("type") == "json_object" else ANSWER
        jsonschema.validate(json.loads(content), schema)
    else:
        assert content.rstrip("!") in ("yes", "no")


def test_without_a_choice_of_tools_the_form_stands_alone() -> None:
    asked = CHAT | {"tools": TOOLS, "tool_choice": "none", "guided_grammar": "start: /a/"}
    sampling = ChatEndpoint().parse(json.dumps(asked).encode()).sampling

    assert sampling.grammar == Grammar.lark("start: /a/")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "(a"}, "guided_regex"),
        ({"guided_regex": "a\\"}, "guided_regex"),
        ({"guided_regex": "a\\\\\\"}, "guided_regex"),
        ({"structured_outputs": {"regex": "[a"}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a\\"}}, "structured_outputs.regex"),
        ({"guided_regex": "a", "tools": [tool("f", {"not": {}}, strict=True)]}, "tools"),
        ({"guided_json": {"type": "no type"}}, "tools"),
    ],
    ids=str,
)
def test_the_field_at_fault_is_named(real: Served, fields: dict[str, Any], param: str) -> None:
    answer = real.http.post("/v1/chat/completions", json=CHAT | {"tools": TOOLS} | fields)

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert "schema of a tool" in error["message"] or "backslash" in error["message"]


@pytest.mark.parametrize("pattern", ["a\\", "\\\\\\"])
def test_a_pattern_that_ends_amid_an_escape_is_refused_with_tools_and_without(pattern: str) -> None:
    for fields in ({}, {"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "none"}):
        with pytest.raises(InvalidRequestError, match="backslash") as refused:
            ChatEndpoint().parse(json.dumps(CHAT | fields | {"guided_regex": pattern}).encode())
        assert refused.value.field == "guided_regex"


class TestJsonOfAnyKind:
    """A schema that is left out, or true."""

    FORMS: tuple[dict[str, Any], ...] = (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": None}}},
        {"guided_json": True},
        {"guided_json": "true"},
        {"guided_json": {}},
        {"structured_outputs": {"json": True}},
    )

    @pytest.mark.parametrize("fields", FORMS, ids=str)
    @pytest.mark.parametrize("tools", [{}, {"tools": TOOLS}], ids=["alone", "tools"])
    def test_the_answer_is_json(self, real: Served, fields: dict[str, Any], tools: dict[str, Any]) -> None:
        asked = CHAT | fields | tools | {"max_tokens": 200, "temperature": 1.5, "seed": 3}
        answer = real.http.post("/v1/chat/completions", json=asked)

        assert answer.status_code == 200, answer.text
        (choice,) = answer.json()["choices"]
        if choice["finish_reason"] == "stop":
            json.loads(choice["message"]["content"])

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            (
                {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": False}}},
                "response_format.json_schema.schema",
            ),
            ({"guided_json": False}, "guided_json"),
            ({"guided_json": "false"}, "guided_json"),
            ({"guided_json": "[1]"}, "guided_json"),
            ({"guided_json": "{"}, "guided_json"),
            ({"structured_outputs": {"json": False}}, "structured_outputs.json"),
        ],
        ids=str,
    )
    def test_a_schema_that_allows_nothing_or_is_none_is_refused(self, fields: dict[str, Any], param: str) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            ChatEndpoint().parse(json.dumps(CHAT | fields).encode())

        assert refused.value.field == param


UNIQUE = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}, "dependentRequired": {}}


class TestWhatIsNotEnforced:
    NAMED = "tools[1].function.parameters: dependentRequired, tools[1].function.parameters: uniqueItems"

    @pytest.mark.parametrize("strict", [{}, {"strict": False}, {"strict": None}], ids=str)
    def test_a_keyword_is_named_and_the_request_is_served(self, real: Served, strict: dict[str, Any]) -> None:
        tools = [*TOOLS, tool("other", UNIQUE, **strict)]
        asked = CHAT | {"tools": tools, "tool_choice": "required", "max_tokens": 20}
        answer = real.http.post("/v1/chat/completions", json=asked)

        assert answer.status_code == 200, answer.text
        assert answer.headers["x-manta-ignored"] == self.NAMED

    def test_a_strict_tool_is_refused_for_it(self, real: Served) -> None:
        tools = [*TOOLS, tool("other", UNIQUE, strict=True)]
        answer = real.http.post("/v1/chat/completions", json=CHAT | {"tools": tools})

        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tools")

    def test_a_response_format_is_refused_for_it(self, real: Served) -> None:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": UNIQUE}}
        answer = real.http.post("/v1/chat/completions", json=CHAT | {"response_format": form})

        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "response_format")

    def test_a_tool_that_may_not_be_called_is_not_named(self) -> None:
        asked = CHAT | {"tools": [*TOOLS, tool("other", UNIQUE)]}
        one = {"type": "function", "function": {"name": "get_time"}}

        for choice in ("none", one):
            request = ChatEndpoint().parse(json.dumps(asked | {"tool_choice": choice}).encode())
            assert request.ignored == ()

    def test_the_header_stays_short_and_one_line(self, served: Served) -> None:
        odd = {"type": "object", "properties": {"a": {"type": "string", "format": "x\r\nset-cookie: a,ü" + "y" * 500}}}
        tools = [tool(f"f{place}", odd) for place in range(40)]
        answer = served.http.post("/v1/chat/completions", json=CHAT | {"tools": tools})

        header = answer.headers["x-manta-ignored"]
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        assert len(header) < 2000
        assert header.endswith(", 24 more keywords of tools")
        assert header.count(", ") == 16
