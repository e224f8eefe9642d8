"""Fields that clients send beside the usual ones: with a meaning, without one and named in a header, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.api import Conversation, Priority, RequestError
from router.errors import InvalidRequestError
from router.inference_request import InferenceRequest
from router.openai.chat import ChatEndpoint
from router.openai.completions import CompletionEndpoint
from tests.router.served import Served

CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
TEXT: dict[str, Any] = {"model": "fast", "prompt": "Hi"}
EPHEMERAL = {"type": "ephemeral", "ttl": "1h"}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def parsed(change: dict[str, Any], base: dict[str, Any] | None = None) -> InferenceRequest:
    endpoint = CompletionEndpoint() if base is TEXT else ChatEndpoint()
    return endpoint.parse(json.dumps((base or CHAT) | change).encode())


def conversation(change: dict[str, Any]) -> Conversation:
    (prompt,) = parsed(change).prompts
    assert isinstance(prompt, Conversation)
    return prompt


def said(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [*CHAT["messages"], *messages]}


@pytest.mark.parametrize(
    ("fields", "opens", "continues"),
    [
        ({}, True, False),
        ({"add_generation_prompt": True}, True, False),
        ({"add_generation_prompt": False}, False, False),
        ({"continue_final_message": True}, False, True),
        ({"continue_final_message": True, "add_generation_prompt": False}, False, True),
        ({"continue_final_message": False, "add_generation_prompt": None}, True, False),
    ],
    ids=str,
)
def test_the_end_of_the_prompt_is_as_asked(fields: dict[str, Any], opens: bool, continues: bool) -> None:
    prompt = conversation(fields)

    assert (prompt.add_generation_prompt, prompt.continue_final_message) == (opens, continues)


def test_a_prompt_cannot_both_open_a_turn_and_continue_one() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        parsed({"continue_final_message": True, "add_generation_prompt": True})

    assert refused.value.field == "continue_final_message"


def test_the_result_of_a_call_cannot_be_continued() -> None:
    with pytest.raises(RequestError) as refused:
        parsed(said({"role": "tool", "tool_call_id": "a", "content": "x"}) | {"continue_final_message": True})

    assert refused.value.param == "continue_final_message"


@pytest.mark.parametrize(
    ("fields", "variables"),
    [
        ({}, {}),
        ({"chat_template_kwargs": {"enable_thinking": False, "x": [1]}}, {"enable_thinking": False, "x": [1]}),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none", "enable_thinking": False}),
        (
            {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}},
            {"reasoning_effort": "none", "enable_thinking": True},
        ),
        ({"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": 2}}, {"reasoning_effort": 2}),
    ],
    ids=str,
)
def test_variables_reach_the_chat_template(fields: dict[str, Any], variables: dict[str, Any]) -> None:
    assert {name: json.loads(value) for name, value in conversation(fields).template_kwargs} == variables


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "bos_token", "a b"])
def test_a_variable_that_is_not_the_clients_is_refused(real: Served, name: str) -> None:
    answer = real.http.post("/v1/chat/completions", json=CHAT | {"chat_template_kwargs": {name: "x"}})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "chat_template_kwargs")


def test_names_and_reasoning_and_ids_reach_the_chat_template() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    messages = conversation(
        said(
            {"role": "user", "content": "Hi", "name": "alice"},
            {"role": "assistant", "content": "A", "reasoning_content": "B"},
            {"role": "assistant", "content": None, "reasoning": "C", "tool_calls": [call]},
            {"role": "tool", "content": "D", "tool_call_id": "call_1", "name": "f"},
        )
    ).messages[1:]

    assert [message.name for message in messages] == ["alice", None, None, "f"]
    assert [message.reasoning_content for message in messages] == [None, "B", "C", None]
    assert [message.tool_call_id for message in messages] == [None, None, None, "call_1"]
    assert [call.id for call in messages[2].tool_calls] == ["call_1"]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "user", "content": "x", "reasoning_content": "y"}, "messages[1].reasoning_content"),
        ({"role": "system", "content": "x", "reasoning": "y"}, "messages[1].reasoning"),
        ({"role": "user", "content": "x", "name": 1}, "messages[1].name"),
        ({"role": "user", "content": "x", "cache_control": True}, "messages[1].cache_control"),
        ({"role": "user", "content": "x", "cache_control": {"type": "x"}}, "messages[1].cache_control.type"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_message_is_named(message: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        parsed(said(message))

    assert refused.value.field == field


@pytest.mark.parametrize("arguments", ["", " \n", "{}"])
def test_empty_arguments_in_the_history_do_no_harm(real: Served, arguments: str) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    history = said(
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "D", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "A", "tool_calls": []},
        {"role": "user", "content": "And?"},
    )
    answer = real.http.post("/v1/chat/completions", json=CHAT | history | {"max_tokens": 2})

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({}, None),
        ({"store": False, "user": None, "service_tier": "auto"}, None),
        ({"reasoning_effort": "none"}, None),
        ({"user": "u"}, None),
        ({"metadata": {"a": "b"}, "store": True}, "metadata, store"),
        ({"verbosity": "low", "reasoning_effort": "high"}, "verbosity"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]}}, "prediction"),
        ({"safety_identifier": "a", "prompt_cache_key": "b"}, "prompt_cache_key"),
        (
            {"prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "implicit", "ttl": "30m"}},
            "prompt_cache_options, prompt_cache_retention",
        ),
        (said({"role": "user", "content": "x", "cache_control": EPHEMERAL}), "messages.cache_control"),
        (
            said({"role": "user", "content": [{"type": "text", "text": "x", "cache_control": EPHEMERAL}]}),
            "messages.cache_control",
        ),
        ({"tools": [FUNCTION | {"cache_control": EPHEMERAL}]}, "tools.cache_control"),
        (
            {"tools": [FUNCTION], "tool_choice": "required", "response_format": {"type": "json_object"}},
            "response_format",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_has_no_effect_is_named_in_a_header(
    served: Served, fields: dict[str, Any], ignored: str | None, stream: bool
) -> None:
    answer = served.http.post("/v1/chat/completions", json=CHAT | fields | {"stream": stream})

    assert answer.status_code == 200, answer.text
    assert answer.headers.get("x-manta-ignored") == ignored


def test_the_template_does_not_see_marks_of_a_cache() -> None:
    marked = {"type": "function", "function": FUNCTION["function"] | {"cache_control": EPHEMERAL}}  # type: ignore[operator]
    marked["cache_control"] = EPHEMERAL

    assert conversation({"tools": [marked]}).tools == conversation({"tools": [FUNCTION]}).tools


@pytest.mark.parametrize(
    ("fields", "priority", "answered"),
    [
        ({}, Priority.STANDARD, None),
        ({"service_tier": None}, Priority.STANDARD, None),
        ({"service_tier": "auto"}, Priority.STANDARD, "default"),
        ({"service_tier": "default"}, Priority.STANDARD, "default"),
        ({"service_tier": "flex"}, Priority.BATCH, "flex"),
        ({"service_tier": "priority"}, Priority.INTERACTIVE, "priority"),
        ({"service_tier": "flex", "priority": -5}, Priority.INTERACTIVE, "flex"),
        ({"service_tier": "priority", "priority": 0}, Priority.STANDARD, "priority"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_service_tier_is_a_class_of_priority_and_comes_back(
    served: Served, fields: dict[str, Any], priority: Priority, answered: str | None, stream: bool
) -> None:
    answer = served.http.post("/v1/chat/completions", json=CHAT | fields | {"stream": stream})

    frames = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    documents = [json.loads(frame) for frame in frames if frame != "[DONE]"]
    assert {document.get("service_tier") for document in documents} == {answered}
    assert all(("service_tier" in document) == (answered is not None) for document in documents)
    assert served.backend.requests[0].priority is priority


@pytest.mark.parametrize("base", [CHAT, TEXT], ids=["chat", "text"])
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream_options": {}, "stream": False}, "stream_options"),
        ({"stream_options": {"include_obfuscation": True}, "stream": True}, "stream_options.include_obfuscation"),
    ],
    ids=str,
)
def test_options_of_a_stream_are_refused_where_they_do_nothing(
    base: dict[str, Any], fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        parsed(fields, base)

    assert refused.value.field == field


@pytest.mark.parametrize("options", [None, {}, {"include_obfuscation": False}, {"include_usage": False}])
def test_options_of_a_stream_that_ask_for_nothing_are_taken(options: Any) -> None:
    assert parsed({"stream_options": options, "stream": True}).stream


WHOLE_NUMBERS = {
    "max_tokens": 5,
    "min_tokens": 1,
    "n": 2,
    "best_of": 3,
    "top_k": 4,
    "seed": 7,
    "priority": 1,
    "no_repeat_ngram_size": 2,
    "prompt_logprobs": 1,
    "allowed_token_ids": [1, 2],
    "stop_token_ids": [3],
}


@pytest.mark.parametrize(
    ("base", "fields"),
    [
        (CHAT, WHOLE_NUMBERS),
        (CHAT, {"max_completion_tokens": 3, "logprobs": True, "top_logprobs": 2}),
        (TEXT, WHOLE_NUMBERS | {"logprobs": 3}),
        (TEXT, {"prompt": [1, 2, 3]}),
        (TEXT, {"prompt": [[1], [2, 3]]}),
    ],
    ids=str,
)
def test_a_whole_number_may_be_written_with_a_point(base: dict[str, Any], fields: dict[str, Any]) -> None:
    pointed = json.loads(json.dumps(fields), parse_int=float)
    plain, other = parsed(fields, base), parsed(pointed, base)

    assert json.dumps(pointed) != json.dumps(fields)
    assert (other.prompts, other.sampling, other.priority) == (plain.prompts, plain.sampling, plain.priority)
    assert all(type(value) is not float for value in other.sampling.stop_token_ids)


@pytest.mark.parametrize("value", [1.5, True, "1", 1e300], ids=str)
@pytest.mark.parametrize(
    ("base", "name"), [(CHAT, name) for name in WHOLE_NUMBERS] + [(TEXT, "prompt")], ids=lambda name: str(name)[:20]
)
def test_anything_else_is_no_whole_number(base: dict[str, Any], name: str, value: Any) -> None:
    listed = name in ("prompt", "allowed_token_ids", "stop_token_ids")
    with pytest.raises(InvalidRequestError) as refused:
        parsed({name: [2, value] if listed else value}, base)

    assert refused.value.field == (f"{name}[1]" if listed else name)


def test_a_last_message_is_continued_by_the_model(real: Served) -> None:
    begun = said({"role": "assistant", "content": "Begun"})
    asked = {"max_tokens": 1, "temperature": 0, "continue_final_message": True}
    opened = real.http.post("/v1/chat/completions", json=CHAT | begun | {"max_tokens": 1}).json()
    continued = real.http.post("/v1/chat/completions", json=CHAT | begun | asked).json()

    assert continued["usage"]["prompt_tokens"] < opened["usage"]["prompt_tokens"]


class TestNoTokens:
    """``max_tokens: 0`` scores a prompt."""

    def test_it_is_taken_for_text_and_not_for_chats(self) -> None:
        assert parsed({"max_tokens": 0}, TEXT).sampling.max_tokens == 0
        for name in ("max_tokens", "max_completion_tokens"):
            with pytest.raises(InvalidRequestError) as refused:
                parsed({name: 0})
            assert refused.value.field == name

    @pytest.mark.parametrize("prompt", ["The sun is", [5, 6, 7]], ids=str)
    def test_the_prompt_comes_back_with_its_probabilities(self, real: Served, prompt: Any) -> None:
        asked = {"model": "fast", "prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 1}
        document = real.http.post("/v1/completions", json=asked).json()
        longer = real.http.post("/v1/completions", json=asked | {"max_tokens": 1}).json()

        (choice,), (other,) = document["choices"], longer["choices"]
        tokens = document["usage"]["prompt_tokens"]
        assert (choice["finish_reason"], document["usage"]["completion_tokens"]) == ("length", 0)
        assert other["text"].startswith(choice["text"])
        assert choice["text"]
        scores, scored = choice["logprobs"], other["logprobs"]
        assert len(scores["tokens"]) == tokens
        assert scores["tokens"] == scored["tokens"][:tokens]
        assert scores["token_logprobs"][0] is None
        assert scores["token_logprobs"][1:] == pytest.approx(scored["token_logprobs"][1:tokens])

    def test_without_echo_the_answer_is_empty(self, real: Served) -> None:
        (choice,) = real.http.post("/v1/completions", json=TEXT | {"max_tokens": 0}).json()["choices"]

        assert (choice["text"], choice["finish_reason"]) == ("", "length")
