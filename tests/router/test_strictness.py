"""A value that asks for something not built is refused, by value and by type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from engine.api import Conversation
from router.config.keys import KeyConfig
from router.config.router import RouterConfig
from router.errors import InvalidRequestError
from router.openai.chat import ChatEndpoint
from router.openai.completions import CompletionEndpoint
from router.openai.errors import error_body

CHAT: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
TEXT: dict[str, Any] = {"model": "fast", "prompt": "Hi"}
MESSAGE = CHAT["messages"][0]


def refusal(form: ChatEndpoint | CompletionEndpoint, document: dict[str, Any]) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as refused:
        form.parse(json.dumps(document).encode())
    return refused.value


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": True}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": "1"}, "n"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"seed": 1e300}, "seed"),
        ({"n": 0}, "n"),
        ({"logprobs": 0}, "logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"store": 0}, "store"),
        ({"presence_penalty": False}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"logit_bias": []}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"5": "much"}}, "logit_bias.5"),
        ({"min_p": 1.5}, "min_p"),
        ({"typical_p": 0}, "typical_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"bad_words": [""]}, "bad_words[0]"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [-1]}, "allowed_token_ids[0]"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": "none"}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {}}, "audio"),
        ({"reasoning_effort": ""}, "reasoning_effort"),
        ({"service_tier": "scale"}, "service_tier"),
        ({"verbosity": "loud"}, "verbosity"),
        ({"prediction": {"type": "content"}}, "prediction.content"),
        ({"stop": ["a"] * 33}, "stop"),
        ({"stop": "a" * 1025}, "stop"),
        ({"stop": ["a" * 1025]}, "stop[0]"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop": {}}, "stop"),
        ({"messages": [MESSAGE | {"content": {}}]}, "messages[0].content"),
        ({"messages": [MESSAGE | {"content": []}]}, "messages[0].content"),
        ({"messages": [MESSAGE, MESSAGE | {"content": [{"type": "text"}]}]}, "messages[1].content[0].text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [MESSAGE | {"tool_calls": [{}]}]}, "messages[0].tool_calls[0].id"),
        ({"metadata": {"\ud800": "x"}}, "metadata"),
        ({"metadata": {"x": "\x00"}}, "metadata.x"),
        ({"\ud800": 1}, None),
        ({"temperature": 10**400}, "temperature"),
        ({"max_tokens": 10**400}, "max_tokens"),
    ],
    ids=str,
)
def test_chat_refuses_what_it_cannot_do(change: dict[str, Any], param: str | None) -> None:
    refused = refusal(ChatEndpoint(), CHAT | change)
    assert refused.field == param
    json.loads(error_body(refused))


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"logprobs": False}, "logprobs"),
        ({"echo": 1}, "echo"),
        ({"suffix": "."}, "suffix"),
        ({"best_of": 129}, "best_of"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [[1], []]}, "prompt[1]"),
        ({"prompt": ["a", "b\x00"]}, "prompt[1]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"messages": []}, "messages"),
    ],
    ids=str,
)
def test_completions_refuse_what_they_cannot_do(change: dict[str, Any], param: str) -> None:
    assert refusal(CompletionEndpoint(), TEXT | change).field == param


def test_an_answer_can_be_sent_back_as_a_message() -> None:
    answer: dict[str, Any] = {"role": "assistant", "content": "Hello", "refusal": None, "annotations": []}
    request = ChatEndpoint().parse(json.dumps(CHAT | {"messages": [MESSAGE, answer, MESSAGE]}).encode())
    (prompt,) = request.prompts
    assert isinstance(prompt, Conversation)
    assert len(prompt.messages) == 3


def test_what_is_supported_instead_is_said() -> None:
    message = refusal(ChatEndpoint(), CHAT | {"modalities": ["audio"]}).message
    assert message == "Invalid 'modalities': only [\"text\"] is supported so far."


@pytest.mark.parametrize("key", ["sha256:abc", "sha256:" + "A" * 64, "sha256:", "two words", "schlüssel", "tab\t", ""])
def test_a_key_that_could_never_open_is_refused_at_start(key: str) -> None:
    with pytest.raises(ValidationError):
        KeyConfig(key=key, tenant="acme", team="core")


def test_a_config_needs_a_key_and_no_strangers() -> None:
    with pytest.raises(ValidationError):
        RouterConfig(keys=())
    with pytest.raises(ValidationError):
        RouterConfig.model_validate({"keys": [{"key": "k", "tenant": "t", "team": "x"}], "max_body_kb": 1})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("stop", "a" * 1025, "must have at most 1024 characters, not 1025"),
        ("cache", {"namespace": "n" * 129}, "must have at most 128 characters, not 129"),
        ("bad_words", [""], "must have at least 1 characters, not 0"),
    ],
    ids=["stop", "namespace", "word"],
)
def test_the_length_of_a_text_is_said_in_characters(field: str, value: object, message: str) -> None:
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}], field: value}
    with pytest.raises(InvalidRequestError, match=message):
        ChatEndpoint().parse(json.dumps(body).encode())
