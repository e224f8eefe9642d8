"""Tools: offered and chosen as OpenAI's clients do, called as their schemas say, streamed and whole alike."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import TOOL_CALL_END, TOOL_CALL_START, Conversation, Message, RequestError, ToolCall
from engine.tokenizer import Tokenizer
from router.answer_events import Text, ToolCallArguments, ToolCallStart
from router.generation.tool_parser import MAX_HELD, Piece, ToolCallParser
from router.tool_grammar import Function, ToolUse
from tests.router.conftest import FAST
from tests.router.served import Served

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "unit": {"enum": ["C", "F"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
    },
    "required": ["city", "days", "unit", "tags"],
    "additionalProperties": False,
}
TIME = {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"]}
SCHEMAS: dict[str, Any] = {"get_weather": WEATHER, "get_time": TIME}


def tool(name: str, parameters: Any = None) -> dict[str, Any]:
    function = {"name": name, "description": f"What {name} says."}
    return {"type": "function", "function": function | ({} if parameters is None else {"parameters": parameters})}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


TOOLS = [tool(name, schema) for name, schema in SCHEMAS.items()]
CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "The weather in Rome?"}]}
NAMED = {"type": "function", "function": {"name": "get_time"}}


def written(*calls: tuple[str, Any]) -> str:
    """Calls as a model writes them."""
    told = (json.dumps({"name": name, "arguments": arguments}) for name, arguments in calls)
    return "\n".join(f"{TOOL_CALL_START}\n{call}\n{TOOL_CALL_END}" for call in told)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_directory(FAST)


class TestGrammar:
    """What an answer may be, by the tokenizer of a real model."""

    @pytest.mark.parametrize(
        ("text", "as_free", "as_required"),
        [
            ("Hello there", True, False),
            ("a < b and <tool", True, False),
            (written(("get_time", {"zone": "UTC"})), True, True),
            ("Let me see.\n" + written(("get_time", {"zone": "UTC"})), True, False),
            (written(("get_time", {"zone": "UTC"}), ("get_time", {"zone": "CET"})), True, True),
            (written(("get_time", {"zone": "nowhere"})), False, False),
            (written(("get_time", {})), False, False),
            (written(("get_rich", {})), False, False),
            (f"a {TOOL_CALL_START} b", False, False),
            (written(("get_time", {"zone": "UTC"})) + " Done.", False, False),
        ],
    )
    @pytest.mark.parametrize("required", [False, True])
    @pytest.mark.parametrize("parallel", [False, True])
    def test_only_what_was_asked_for_is_allowed(
        self, tokenizer: Tokenizer, text: str, as_free: bool, as_required: bool, required: bool, parallel: bool
    ) -> None:
        functions = [Function(name, schema) for name, schema in SCHEMAS.items()]
        use = ToolUse(functions, required, parallel)
        matcher = tokenizer.grammar_compiler(4096).compile(use.grammar, 0).matcher
        tokens = tokenizer.encode(text)

        allowed = matcher.validate_tokens(tokens) == len(tokens)
        allowed = allowed and matcher.consume_tokens(tokens) and matcher.is_accepting()

        expected = (as_required if required else as_free) and (parallel or text.count(TOOL_CALL_START) < 2)
        assert allowed == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CONTENT = st.text(alphabet="ab <\n>tool_call/", max_size=30).filter(lambda text: TOOL_CALL_START not in text)


def joined(pieces: Iterable[Piece]) -> tuple[str, list[tuple[str, str]]]:
    """The text of pieces, and the calls in them: name and arguments."""
    content, names, arguments = "", list[str](), list[str]()
    for piece in pieces:
        match piece:
            case Text(_, text):
                content += text
            case ToolCallStart(_, _, _, name):
                names.append(name)
                arguments.append("")
            case ToolCallArguments(_, call, text):
                arguments[call] += text
    return content, list(zip(names, arguments, strict=True))


@given(
    CONTENT,
    st.lists(st.tuples(st.sampled_from(sorted(SCHEMAS)), st.dictionaries(st.text(), JSON, max_size=3)), max_size=3),
    st.lists(st.integers(0, 300), max_size=12),
)
def test_however_the_text_is_cut_the_calls_are_the_same(
    content: str, calls: list[tuple[str, dict[str, Any]]], cuts: list[int]
) -> None:
    text = content + written(*calls)
    reader, pieces = ToolCallParser(), list[Piece]()
    for start, end in pairwise(sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})):
        pieces += reader.push(text[start:end])
        for (_, arguments), (_, whole) in zip(joined(pieces)[1], calls, strict=False):
            assert json.dumps(whole).startswith(arguments)
    said, found = joined([*pieces, *reader.finish()])

    assert said == (content.rstrip() if calls else content)
    assert found == [(name, json.dumps(arguments)) for name, arguments in calls]


@pytest.mark.parametrize("end", range(1, 120, 7))
def test_of_a_call_that_is_cut_off_there_is_the_beginning(end: int) -> None:
    whole = written(("get_weather", {"city": 'a "quoted" \\ name', "days": 3}), ("get_time", {"zone": "UTC"}))
    reader = ToolCallParser()
    content, calls = joined([*reader.push(whole[:end]), *reader.finish()])

    assert content in ("", whole[:end])
    assert len(calls) == whole[:end].count('"arguments": ')
    last = whole[:end].rpartition(TOOL_CALL_START)[2]
    assert reader.called == any(
        json.dumps(each) in last for each in ({"city": r'a "quoted" \ name', "days": 3}, {"zone": "UTC"})
    )
    for (_, begun), arguments in zip(calls, ({"city": 'a "quoted" \\ name', "days": 3}, {"zone": "UTC"}), strict=False):
        assert json.dumps(arguments).startswith(begun)


def streamed(served: Served, **fields: Any) -> tuple[str, list[tuple[str, str]], str | None]:
    """Content, calls with their arguments, and why it ended, put together from chunks as clients do."""
    content, names, arguments, reason = "", dict[int, str](), dict[int, str](), None
    for chunk in served.openai.chat.completions.create(**CHAT, **fields, stream=True):
        choice = chunk.choices[0]
        content += choice.delta.content or ""
        reason = choice.finish_reason or reason
        for piece in choice.delta.tool_calls or []:
            assert piece.function is not None
            if piece.id is not None:
                assert piece.id.startswith("call_")
                assert piece.function.name is not None
                names[piece.index], arguments[piece.index] = piece.function.name, ""
            arguments[piece.index] += piece.function.arguments or ""
    return content, [(names[index], arguments[index]) for index in names], reason


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "required"},
        {"tool_choice": "required", "parallel_tool_calls": False},
        {"tool_choice": NAMED},
        {"tool_choice": "auto", "temperature": 2},
        {"temperature": 1, "logprobs": True, "tool_choice": "required"},
        {
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [NAMED]},
            }
        },
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(4))
def test_calls_are_the_same_streamed_and_whole_and_valid(real: Served, fields: dict[str, Any], seed: int) -> None:
    asked = {"temperature": 1.5, "seed": seed, "max_tokens": 250, "tools": TOOLS, **fields}

    choice = real.openai.chat.completions.create(**CHAT, **asked).choices[0]
    content, calls, reason = streamed(real, **asked)

    whole = [(c.function.name, c.function.arguments) for c in choice.message.tool_calls or [] if c.type == "function"]
    assert (choice.message.content or "", whole, choice.finish_reason) == (content, calls, reason)
    if fields.get("tool_choice") != "auto":
        assert calls
    if reason == "tool_calls":
        for name, arguments in calls:
            jsonschema.validate(json.loads(arguments), SCHEMAS[name])
    if fields.get("parallel_tool_calls") is False:
        assert len(calls) == 1
    if "get_time" in str(fields.get("tool_choice")):
        assert {name for name, _ in calls} == {"get_time"}
    if fields.get("logprobs"):
        assert choice.logprobs is not None


def test_a_call_that_a_stop_string_cuts_off_is_not_called_one(real: Served) -> None:
    asked: dict[str, Any] = {"seed": 1, "tools": TOOLS, "tool_choice": NAMED, "stop": ["UTC", "CET"], "max_tokens": 99}

    choice = real.openai.chat.completions.create(**CHAT, **asked).choices[0]
    _, calls, reason = streamed(real, **asked)

    assert choice.finish_reason == reason == "stop"
    assert calls == [("get_time", '{"zone": "')]


def test_several_choices_call_by_themselves(real: Served) -> None:
    answer = real.openai.chat.completions.create(
        **CHAT,
        n=3,
        seed=1,
        temperature=1.5,
        tools=TOOLS,
        tool_choice=NAMED,
        max_tokens=100,  # type: ignore[call-overload]
    )

    ids = [choice.message.tool_calls[0].id for choice in answer.choices]
    assert len(set(ids)) == 3


def test_calls_and_their_results_go_back_to_the_model(real: Served) -> None:
    first = real.openai.chat.completions.create(
        **CHAT,
        seed=1,
        temperature=1.5,
        tools=TOOLS,
        tool_choice=NAMED,
        max_tokens=100,  # type: ignore[call-overload]
    )
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "12:00"}

    sent: Any = {"messages": [*CHAT["messages"], message, result], "tools": TOOLS}
    answer = real.openai.chat.completions.create(model="fast", max_tokens=5, **sent)

    assert answer.usage is not None
    assert answer.usage.prompt_tokens > first.usage.prompt_tokens + 20


def test_the_engine_gets_tools_and_calls(served: Served) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_time", "arguments": '{"zone": "UTC"}'}}
    messages = [
        *CHAT["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
    ]

    served.http.post("/v1/chat/completions", json={"model": "fast", "messages": messages, "tools": TOOLS})

    [request] = served.backend.requests
    assert [json.loads(tool) for tool in request.prompt.tools] == TOOLS  # type: ignore[union-attr]
    assert request.prompt.messages[1:] == (  # type: ignore[union-attr]
        Message("assistant", "", (ToolCall("get_time", '{"zone": "UTC"}', "call_1"),)),
        Message("tool", "12:00", tool_call_id="call_1"),
    )


def test_with_a_choice_of_none_there_are_no_tools(served: Served) -> None:
    answer = served.openai.chat.completions.create(**CHAT, tools=TOOLS, tool_choice="none")  # type: ignore[call-overload]

    [request] = served.backend.requests
    assert request.sampling.grammar is None
    assert request.prompt.tools == ()  # type: ignore[union-attr]
    assert answer.choices[0].message.tool_calls is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [tool("a b")]}, "tools[0].function.name"),
        ({"tools": [tool("a"), tool("a")]}, "tools"),
        ({"tools": [tool("a", {"type": "array"})]}, "tools[0].function.parameters"),
        ({"tools": [tool("a", {"x-guidance": {}})]}, "tools[0].function.parameters"),
        ({"tools": [tool("a", {"title": "\ud800"})]}, "tools[0].function.parameters"),
        ({"tools": [tool("a", deep(200))]}, "tools[0].function.parameters"),
        ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools[0].type"),
        ({"tools": TOOLS, "tool_choice": "some"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": TOOLS, "guided_grammar": "start: /a/"}, "guided_grammar"),
        ({"tools": TOOLS, "structured_outputs": {"grammar": "start: /a/"}}, "structured_outputs"),
        ({"tools": TOOLS, "guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "tool_call_id": "y"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]}, "messages[0].tool_calls[0].type"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_by_its_name(served: Served, fields: dict[str, Any], param: str) -> None:
    body = json.dumps(CHAT | fields).encode()
    answer = served.http.post("/v1/chat/completions", content=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param, answer.text


def test_a_schema_that_cannot_be_followed_is_refused_by_the_field_that_asked(real: Served) -> None:
    bad = tool("f", {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}})
    bad["function"]["strict"] = True  # else what cannot be followed is left out and named in a header

    answer = real.http.post("/v1/chat/completions", json=CHAT | {"tools": [bad]})

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("tools", "invalid_grammar")
    assert "does not exist" in error["message"]
    assert TOOL_CALL_START not in error["message"]


def test_a_template_that_knows_no_tools_is_told_of_them_in_words() -> None:
    hub = Tokenizer.from_directory(FAST)
    asked = (Message("system", "Be brief."), Message("user", "Hi"))
    conversation = Conversation(asked, (json.dumps(TOOLS[1]),))
    told = hub.decode(hub.encode(conversation))

    assert "Be brief." in told
    assert json.dumps(TOOLS[1]) in told
    with pytest.raises(RequestError):
        hub.encode(Conversation((Message("user", "\ud800"),)))


def test_white_space_before_a_call_is_held_back_up_to_a_limit() -> None:
    reader = ToolCallParser()
    pieces = [piece for _ in range(5_000) for piece in reader.push(" ")]
    content, _ = joined(pieces)
    assert 5_000 - MAX_HELD <= len(content) < 5_000
    rest, calls = joined([*pieces, *reader.push("a" + written(("get_time", {"zone": "UTC"}))), *reader.finish()])
    assert rest == " " * 5_000 + "a"
    assert [name for name, _ in calls] == ["get_time"]
