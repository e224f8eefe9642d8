"""Tools reach the model by its own template where that knows them, and in words where it does not."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest

from engine.api import Conversation, Message, RequestError, ToolCall
from engine.tokenizer import Tokenizer
from tests.engine.models import EOS, make_tokenizer

# The way of Hermes and Qwen, in few words.
AWARE = (
    "{% if tools %}<|user|>Tools: {% for tool in tools %}{{ tool | tojson }}{% endfor %} "
    'Say <tool_call>{\\"name\\": ..., \\"arguments\\": ...}</tool_call>' + EOS + "{% endif %}"
    "{% for m in messages %}<|{{ m.role if m.role == 'assistant' else 'user' }}|>{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function.name }}:"
    "{{ call.function.arguments | tojson }}</tool_call>{% endfor %}" + EOS + "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if not loop.first and messages[loop.index0 - 1].role == m.role %}{{ raise_exception('twice') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}" + EOS + "{% endfor %}<|assistant|>"
)
OTHER_WAY = AWARE.replace('{\\"name\\": ..., \\"arguments\\": ...}', "<function=name>")
TOOL = {"type": "function", "function": {"name": "get_time", "description": f"Tells {EOS} time, “naïve”."}}
ASKED = (
    Message("user", "What time is it?"),
    Message("assistant", "", (ToolCall("get_time", '{"zone": "UTC", "note": "<|user|>"}'),)),
    Message("tool", "12:00"),
    Message("user", "Thanks."),
)


def tokenizer(template: str | None = None) -> Tokenizer:
    hub = copy.deepcopy(make_tokenizer())
    hub.chat_template = template or hub.chat_template
    return Tokenizer(hub, frozenset({0}))


def told(subject: Tokenizer, conversation: Conversation) -> str:
    return str(subject._fast.decode(subject.encode(conversation), skip_special_tokens=False))


def test_a_template_that_knows_tools_gets_them_and_calls_as_objects() -> None:
    text = told(tokenizer(AWARE), Conversation(ASKED, (json.dumps(TOOL),)))

    assert "Tells <|end|> time, “naïve”." in text
    assert '<tool_call>get_time:{"zone": "UTC", "note": "<|user|>"}</tool_call>' in text
    assert text.count("12:00") == 1


def test_special_tokens_in_tools_and_calls_are_plain_text() -> None:
    for template in (AWARE, None):
        subject = tokenizer(template)
        tokens = subject.encode(Conversation(ASKED, (json.dumps(TOOL),)))
        harmless = [Message(m.role, m.content, tuple(ToolCall(c.name, "{}") for c in m.tool_calls)) for m in ASKED]
        plain = subject.encode(Conversation(tuple(harmless), (json.dumps({"type": "function"}),)))

        assert [token for token in tokens if token < 3] == [token for token in plain if token < 3]


@pytest.mark.parametrize("template", [None, OTHER_WAY, NO_SYSTEM])
def test_any_other_template_is_told_in_words(template: str | None) -> None:
    text = told(tokenizer(template), Conversation(ASKED, (json.dumps(TOOL),)))

    assert json.dumps(TOOL, ensure_ascii=False) in text
    assert '<tool_call>\n{"name": "get_time", "arguments": {"zone": "UTC", "note": "<|user|>"}}\n</tool_call>' in text
    assert "<tool_response>\n12:00\n</tool_response>\nThanks." in text
    assert ("Tools: " in text) is False


@pytest.mark.parametrize(
    "arguments", ["not JSON", "[" * 20_000, "[" * 500 + "]" * 500, '{"a": "\\ud800"}', "[1]", "null", '{"a": ' * 100]
)
@pytest.mark.parametrize("template", [AWARE, AWARE.replace("| tojson }}</tool", "| items }}</tool"), None])
def test_whatever_arguments_come_back_it_is_told_or_refused(template: str | None, arguments: str) -> None:
    conversation = Conversation((ASKED[0], Message("assistant", "", (ToolCall("f", arguments),))))
    subject = tokenizer(template)

    with contextlib.suppress(RequestError):
        assert subject.encode(conversation)


@pytest.mark.parametrize("tool", ["", "{", "[" * 20_000, '"' + "\\ud800" + '"', "[" * 80 + "]" * 80])
def test_a_tool_that_is_none_is_refused(tool: str) -> None:
    with pytest.raises(RequestError) as refusal:
        tokenizer().encode(Conversation(ASKED[:1], (tool,)))

    assert refusal.value.param == "tools"


def test_without_tools_nothing_is_told_of_them() -> None:
    messages: list[Any] = [{"role": "user", "content": "Hi"}]
    expected = make_tokenizer().apply_chat_template(messages, add_generation_prompt=True, return_dict=False)

    assert tokenizer().encode(Conversation((Message("user", "Hi"),))) == expected
