"""What clients have run into with other servers of this API. Each test names the public report it is made from."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from router.openai.chat import ChatRequest
from router.openai.completions import CompletionRequest
from tests.router.served import Served

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


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": []},
        {"role": "assistant", "content": ""},
        {"role": "assistant"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant", "content": None, "reasoning_content": ""},
        {"role": "tool", "tool_call_id": "call_1", "content": []},
        {"role": "tool", "tool_call_id": "call_1", "content": None},
    ],
    ids=str,
)
def test_an_empty_answer_does_not_end_the_conversation(real: Served, message: dict[str, Any]) -> None:
    """tashfeenahmed/freellmapi#165, defilantech/LLMKube#935, github/copilot-sdk#2469, vllm-project/vllm#21089: agents
    send back what they got, and each later turn failed."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    before = [{"role": "assistant", "tool_calls": [call]}] if message["role"] == "tool" else []
    messages = [*CHAT["messages"], *before, message, {"role": "user", "content": "Go on."}]
    answer = real.http.post("/v1/chat/completions", json=CHAT | {"messages": messages, "max_tokens": 2})

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("role", ["user", "system", "developer"])
@pytest.mark.parametrize("content", [None, []], ids=str)
def test_who_asks_says_something(served: Served, role: str, content: Any) -> None:
    message = {"role": role, "content": content}
    answer = served.http.post("/v1/chat/completions", json=CHAT | {"messages": [message]})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages[0].content")


@pytest.mark.parametrize("arguments", ['{"value": ', '"Beijing"', '["a"]', "not json", "{" * 500, '{"a": "\\ud800"}'])
def test_the_arguments_of_an_earlier_call_need_not_be_an_object(real: Served, arguments: str) -> None:
    """vllm-project/vllm#48922, sgl-project/sglang#28035, ggml-org/llama.cpp#25510: a call that was cut off by
    max_tokens failed all turns after it."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "The arguments are no JSON."}
    messages = [*CHAT["messages"], {"role": "assistant", "content": None, "tool_calls": [call]}, result]
    answer = real.http.post(
        "/v1/chat/completions", json=CHAT | {"messages": messages, "tools": [TOOL], "max_tokens": 2}
    )

    assert answer.status_code == 200, answer.text


def test_what_litellm_knows_of_another_provider_goes_back_with_its_message(real: Served) -> None:
    """HolmesGPT/holmesgpt#1943: its messages have a member of its own, and so have their calls."""
    own: dict[str, Any] = {"provider_specific_fields": {"refusal": None, "citations": [{"a": 1}]}}
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"} | own} | own
    answered = {"role": "assistant", "content": None, "tool_calls": [call]} | own
    result = {"role": "tool", "tool_call_id": "call_1", "content": "1"}
    asked = {"messages": [*CHAT["messages"], answered, result], "max_tokens": 2}
    answer = real.http.post("/v1/chat/completions", json=CHAT | asked)

    assert answer.status_code == 200, answer.text


USUAL: dict[str, Any] = {
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "include_stop_str_in_output": False,
    "return_token_ids": False,
    "return_tokens_as_token_ids": False,
    "echo": False,
}
"""Values that vLLM's fields have if they are left out."""


@pytest.mark.parametrize(
    ("path", "base"),
    [
        ("chat/completions", CHAT | {"add_special_tokens": False}),
        ("completions", TEXT | {"add_special_tokens": True}),
    ],
    ids=["chat", "text"],
)
def test_what_clients_of_vllm_write_out_asks_for_nothing(served: Served, path: str, base: dict[str, Any]) -> None:
    """ai-dynamo/dynamo#4175, NVIDIA-NeMo/Skills#1488: settings of clients have these fields."""
    answer = served.http.post(f"/v1/{path}", json=base | USUAL)
    assert answer.status_code == 200, answer.text
    assert "x-manta-ignored" not in answer.headers

    refused = served.http.post(f"/v1/{path}", json=base | {"skip_special_tokens": False})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_parameter")
    assert "only true" in refused.json()["error"]["message"]


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


@pytest.mark.parametrize(("path", "base"), [("chat/completions", CHAT), ("completions", TEXT)], ids=["chat", "text"])
def test_counts_in_each_chunk_are_no_reason_to_refuse(served: Served, path: str, base: dict[str, Any]) -> None:
    """vllm-project/guidellm#603: the load generator asks every service for them, and reads the last."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    answer = served.http.post(f"/v1/{path}", json=base | {"stream": True, "stream_options": options})
    last = json.loads(answer.text.split("\n\n")[-3].removeprefix("data: "))

    assert answer.status_code == 200, answer.text
    assert answer.headers["x-manta-ignored"] == "stream_options.continuous_usage_stats"
    assert last["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(("path", "base"), [("chat/completions", CHAT), ("completions", TEXT)], ids=["chat", "text"])
def test_as_many_stop_strings_as_coding_assistants_send(served: Served, path: str, base: dict[str, Any]) -> None:
    """continuedev/continue#2461 (9), #1572 (14), SillyTavern/SillyTavern#1844 (any number)."""
    words = ("class", "def", "func", "type", "var", "let", "const", "import", "export", "return", "if", "for", "do")
    stops = [f"\n{word}" for word in words]
    answer = served.http.post(f"/v1/{path}", json=base | {"stop": stops})

    assert answer.status_code == 200, answer.text
    assert served.backend.requests[0].sampling.stop == tuple(stops)


def test_no_log_probabilities_of_others_may_be_asked_for(served: Served) -> None:
    """Clients that write all fields write 0, which asks for nothing."""
    answer = served.http.post("/v1/chat/completions", json=CHAT | {"logprobs": False, "top_logprobs": 0})

    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["logprobs"] is None


def test_the_length_of_the_context_has_the_name_that_clients_read(served: Served) -> None:
    """can1357/oh-my-pi#939."""
    models = served.http.get("/v1/models").json()["data"]

    assert models
    for model in models:
        assert model["max_model_len"] == model["context_length"] == 1024


@pytest.mark.parametrize("stream", [True, False])
def test_the_tokens_of_reasoning_are_told_apart(served: Served, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """vllm-project/vllm#44398, InternLM/lmdeploy#4842: clients show what was spent on it."""
    monkeypatch.setattr("tests.router.backend.WORDS", ("<think>", "Hm", ", so", "</think>", "Four."))
    create: Any = served.openai.chat.completions.create
    if stream:
        *_, last = create(**CHAT, stream=True, stream_options={"include_usage": True})
        usage = last.usage
    else:
        usage = create(**CHAT).usage

    assert usage.completion_tokens == 5
    assert usage.completion_tokens_details.reasoning_tokens == 2


def test_an_answer_without_reasoning_has_spent_nothing_on_it(served: Served) -> None:
    """The member is there, so that a client need not ask whether it is."""
    usage = served.openai.chat.completions.create(**CHAT).usage

    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 0


def test_readiness_has_the_path_that_tools_for_vllm_ask(served: Served) -> None:
    """vllm-project/guidellm#474: the load generator begins with it, and ends if it is a 404."""
    assert served.http.get("/health").status_code == served.http.get("/healthz").status_code == 200
    served.backend.ready = False
    assert served.http.get("/health").status_code == served.http.get("/healthz").status_code == 503


class Call(BaseModel):
    """A function without arguments, as OpenAI's library describes it."""


def test_what_the_library_has_parsed_goes_back_with_its_message(real: Served) -> None:
    """openai/openai-python#2720 is the same of another endpoint: the message of ``parse`` has members of its own."""
    tools = [openai.pydantic_function_tool(Call)]
    asked: Any = {"model": "fast", "tools": tools, "max_tokens": 60, "temperature": 0}
    first = real.openai.chat.completions.parse(**asked, messages=CHAT["messages"], tool_choice="required")
    message = first.choices[0].message
    assert message.tool_calls
    assert isinstance(message.tool_calls[0].function.parsed_arguments, Call)
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "1"}

    for sent in (message, message.model_dump()):
        messages: Any = [*CHAT["messages"], sent, result]
        answer = real.openai.chat.completions.create(**asked, messages=messages)
        assert answer.choices
    parsed = {"role": "assistant", "content": "{}", "parsed": {"a": [1]}}
    body = CHAT | {"messages": [*CHAT["messages"], parsed, *CHAT["messages"]], "max_tokens": 2}
    assert real.http.post("/v1/chat/completions", json=body).status_code == 200
