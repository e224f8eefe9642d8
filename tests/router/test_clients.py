"""What clients have run into with other servers of this API. Each test names the public report it is made from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.openai.chat import ChatRequest
from router.openai.completions import CompletionRequest
from tests.router.conftest import Served

CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
TEXT: dict[str, Any] = {"model": "fast", "prompt": "Hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
NAMED = {"type": "function", "function": {"name": "f"}}


def chunks(served: Served, **fields: Any) -> list[dict[str, Any]]:
    text = served.http.post("/v1/chat/completions", json=CHAT | fields | {"stream": True}).text
    frames = [frame.removeprefix("data: ") for frame in text.split("\n\n") if frame]
    assert frames[-1] == "[DONE]", text
    return [json.loads(frame) for frame in frames[:-1]]


def test_the_first_piece_of_a_call_says_all_of_it_and_the_others_only_arguments(real: Served) -> None:
    """vllm-project/vllm#16340 (no type), sgl-project/sglang#5661 (no index), #35542 (null members)."""
    told = chunks(real, tools=[TOOL], tool_choice=NAMED, max_tokens=60, temperature=0)
    pieces = [call for chunk in told for call in chunk["choices"][0]["delta"].get("tool_calls", [])]

    first, *others = pieces
    assert first.keys() == {"index", "id", "type", "function"}
    assert (first["index"], first["type"]) == (0, "function")
    assert first["function"] == {"name": "f", "arguments": ""}
    assert others
    for piece in others:
        assert piece.keys() == {"index", "function"}
        assert piece["function"].keys() == {"arguments"}


def test_the_role_comes_first_and_nothing_is_null(served: Served) -> None:
    """sgl-project/sglang#18335 (null until the reasoning ends), BerriAI/litellm#2010 (nulls at the end)."""
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(served)]

    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert deltas[-1] == {}
    assert all(isinstance(delta["content"], str) for delta in deltas[1:-1])


def test_the_chunk_of_usage_has_an_empty_list_of_choices(served: Served) -> None:
    """ggml-org/llama.cpp#15443."""
    *others, last = chunks(served, stream_options={"include_usage": True})

    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in others)


def test_an_answer_that_calls_no_tool_has_no_calls(served: Served) -> None:
    """abetlen/llama-cpp-python#1314 (a 500), JamePeng/llama-cpp-python#113 (no refusal)."""
    (choice,) = served.http.post("/v1/chat/completions", json=CHAT | {"tools": [TOOL]}).json()["choices"]

    assert not choice["message"].get("tool_calls")
    assert choice["message"]["refusal"] is None
    assert choice["logprobs"] is None
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (
            {"role": "assistant", "tool_calls": [{"id": None, "type": "function", "function": {"name": "f"}}]},
            "messages[1].tool_calls[0].id",
        ),
        ({"role": "tool", "content": "x", "tool_call_id": None}, "messages[1].tool_call_id"),
        ({"role": "user", "content": "x", "id": 1}, "messages[1].id"),
    ],
    ids=str,
)
def test_a_bad_message_is_the_clients_fault_and_named(served: Served, message: dict[str, Any], field: str) -> None:
    """sigoden/aichat#1296 (a 500 for ids of null), vllm-project/vllm#10463 (an error that is hard to read)."""
    answer = served.http.post("/v1/chat/completions", json=CHAT | {"messages": [*CHAT["messages"], message]})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


def test_a_message_with_a_name_is_taken(served: Served) -> None:
    """vllm-project/vllm#12864."""
    named: Any = [{"role": "user", "content": "Hi", "name": "bob"}]

    assert served.openai.chat.completions.create(model="fast", messages=named).choices


@pytest.mark.parametrize(
    ("path", "base", "names"),
    [
        ("chat/completions", CHAT, ChatRequest.model_fields),
        ("completions", TEXT, CompletionRequest.model_fields),
    ],
    ids=["chat", "text"],
)
def test_null_leaves_every_field_out(served: Served, path: str, base: dict[str, Any], names: Any) -> None:
    """Generated clients write all fields that they know."""
    answer = served.http.post(f"/v1/{path}", json=dict.fromkeys(names) | base)

    assert answer.status_code == 200, answer.text
    assert "x-manta-ignored" not in answer.headers


def test_an_answer_goes_back_with_all_its_members(real: Served) -> None:
    """Agents keep what the client library makes of an answer, with members that are null."""
    first = real.openai.chat.completions.create(
        **CHAT,
        tools=[TOOL],
        tool_choice=NAMED,
        max_tokens=60,
        temperature=0,  # type: ignore[call-overload]
    )
    message = first.choices[0].message.model_dump()
    assert message["tool_calls"]
    assert None in message.values()
    result = {
        "role": "tool",
        "tool_call_id": message["tool_calls"][0]["id"],
        "content": [{"type": "text", "text": "1"}],
    }
    asked = {"messages": [*CHAT["messages"], message, result], "tools": [TOOL], "max_tokens": 2}
    answer = real.http.post("/v1/chat/completions", json=CHAT | asked)

    assert answer.status_code == 200, answer.text
