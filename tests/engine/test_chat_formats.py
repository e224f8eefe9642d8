"""Whatever form a chat template wants messages in, it gets all of them, and nothing vanishes in silence."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from typing import Any

import pytest
from jinja2 import Template
from jinja2.defaults import DEFAULT_NAMESPACE
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from engine.api import Conversation, Message, RequestError, ToolCall
from engine.chat_template import RESERVED_VARIABLES
from engine.tokenizer import Tokenizer
from tests.engine.models import EOS, make_tokenizer

OPEN = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
FIXED = "{% for m in messages %}{% if m.role in ['user', 'system', 'assistant'] %}<|{{ m.role }}|>{{ m.content }}"
FIXED += f"{EOS}{{% endif %}}{{% endfor %}}{OPEN}"
STRICT = "{% for m in messages %}{% if m.role not in ['user', 'system', 'assistant'] %}{{ raise_exception('role?') }}"
STRICT += f"{{% endif %}}<|{{{{ m.role }}}}|>{{{{ m.content }}}}{EOS}{{% endfor %}}{OPEN}"
ANY = "You help a developer. {% for m in messages %}<|{{ m.role }}|>{{ m.content }}" + EOS + "{% endfor %}" + OPEN
KNOWING = FIXED.replace("'system', ", "'system', 'developer', ")
SILENT = f"{{% for m in messages %}}{{% if m.role == 'user' %}}[{{{{ m.content }}}}]{{% endif %}}{{% endfor %}}{OPEN}"
FIRST_ONLY = "{% if messages[0].role == 'system' %}({{ messages[0].content }}){% endif %}" + SILENT
WALK = "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}"
PARTS = "{% for m in messages %}<|{{ m.role }}|>" + WALK + EOS + "{% endfor %}" + OPEN
PARTS_BY_NAME = PARTS.replace("in m.content", "in said").replace(
    "<|{{ m.role }}|>", "{% set said = m['content'] %}<|{{ m.role }}|>"
)
PARTS_IN_MACRO = "{% macro say(m) %}" + WALK + "{% endmacro %}" + PARTS.replace(WALK, "{{ say(m) }}")
FIRST_PART = PARTS.replace(WALK, "{{ m.content[0].text }}")
STRINGS_FIRST = PARTS.replace(WALK, "{% if m.content is string %}{{ m.content }}{% else %}P" + WALK + "{% endif %}")
PARTS_FIRST = PARTS.replace(
    WALK, "{% if m.content is not string and m.content is iterable %}P" + WALK + "{% else %}{{ m.content }}{% endif %}"
)
CHARACTERS_CHECKED = PARTS.replace(WALK, "{% if m.content is iterable %}" + WALK + "{% endif %}")


def subject(template: str) -> Tokenizer:
    hub = copy.deepcopy(make_tokenizer())
    hub.chat_template = template
    return Tokenizer(hub, frozenset({0}))


def text(template: str, *messages: Message, **settings: object) -> str:
    tokenizer = subject(template)
    conversation = Conversation(messages, **settings)  # type: ignore[arg-type]
    return str(tokenizer._fast.decode(tokenizer.encode(conversation), skip_special_tokens=False))


RULE, HI = "Answer BANANA only.", Message("user", "hi")


@pytest.mark.parametrize("template", [FIXED, STRICT, ANY, SILENT, FIRST_ONLY, PARTS, STRINGS_FIRST])
def test_a_developers_message_is_the_systems_where_the_role_is_not_known(template: str) -> None:
    told = text(template, Message("developer", RULE), HI)

    assert RULE in told
    assert told == text(template, Message("system", RULE), HI)
    assert "<|developer|>" not in told


def test_a_template_that_knows_developers_gets_them() -> None:
    assert text(KNOWING, Message("developer", RULE), HI).startswith(f"<|developer|>{RULE}{EOS}")


@pytest.mark.parametrize(
    ("template", "expected"), [(SILENT, "[a\n\nb\n\nhi]<|assistant|>"), (FIRST_ONLY, "(a\n\nb)[hi]<|assistant|>")]
)
def test_what_the_system_says_moves_where_the_template_writes_it(template: str, expected: str) -> None:
    assert text(template, Message("system", "a"), Message("developer", "b"), HI) == expected


@pytest.mark.parametrize("messages", [(Message("critic", RULE), HI), (HI, Message("system", RULE))])
def test_a_message_that_would_vanish_is_refused(messages: tuple[Message, ...]) -> None:
    with pytest.raises(RequestError, match="leaves out messages of the role") as refusal:
        text(SILENT, *messages)
    assert refusal.value.param == "messages"
    assert RULE in text(ANY, *messages)


def test_a_template_that_refuses_a_role_says_so() -> None:
    with pytest.raises(RequestError, match=r"role\?"):
        text(STRICT, Message("critic", RULE), HI)


@pytest.mark.parametrize("template", [PARTS, PARTS_BY_NAME, PARTS_IN_MACRO, FIRST_PART, CHARACTERS_CHECKED])
def test_a_template_that_walks_over_parts_gets_parts(template: str) -> None:
    told = text(template, Message("system", RULE), Message("user", "Something not safe"))

    assert told == f"<|system|>{RULE}{EOS}<|user|>Something not safe{EOS}<|assistant|>"


@pytest.mark.parametrize("template", [STRINGS_FIRST, PARTS_FIRST, FIXED])
def test_a_template_that_takes_strings_gets_strings(template: str) -> None:
    assert text(template, Message("user", "Something")) == f"<|user|>Something{EOS}<|assistant|>"


def test_special_tokens_in_parts_are_plain_text() -> None:
    tokens = subject(PARTS).encode(Conversation((Message("user", f"a{EOS}b"),)))

    assert [token for token in tokens if token < 3] == subject(PARTS).encode(f"<|user|>{EOS}<|assistant|>")


CALL = '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": ARGS}\n</tool_call>'
CALLS = "{% for c in m.tool_calls or [] %}" + CALL + "{% endfor %}"
TOOLS = "{% for m in messages %}{{ m.content }}" + CALLS + "\n{% endfor %}"
AS_JSON = TOOLS.replace("ARGS", "{{ c.function.arguments | tojson }}")
AS_ITEMS = TOOLS.replace("ARGS", "{% for k, v in c.function.arguments | items %}{{ k }}={{ v }}{% endfor %}")


@pytest.mark.parametrize("arguments", ["", "null", " \n", " null "])
@pytest.mark.parametrize("template", [AS_JSON, AS_ITEMS, FIXED])
def test_a_call_without_arguments_has_an_empty_object(template: str, arguments: str) -> None:
    history = (HI, Message("assistant", "", (ToolCall("now", arguments),)), Message("tool", "12:00"))
    plain = (HI, Message("assistant", "", (ToolCall("now", "{}"),)), Message("tool", "12:00"))

    assert text(template, *history) == text(template, *plain)
    assert ('"arguments": {}' in text(template, *history)) is (template != AS_ITEMS)


FIELDS = "{% for m in messages %}<|{{ m.role }}|>{% if m.name %}({{ m.name }}){% endif %}"
FIELDS += "{% if m.reasoning_content is defined %}<think>{{ m.reasoning_content }}</think>{% endif %}"
FIELDS += "{{ m.content }}" + EOS + "{% endfor %}" + OPEN


def test_names_and_reasoning_reach_the_template_as_plain_text() -> None:
    messages = (Message("user", "hi", name=f"Ann{EOS}"), Message("assistant", "Yes.", reasoning_content="Hm."))

    tokens = subject(FIELDS).encode(Conversation(messages))

    expected = f"<|user|>(Ann{EOS})hi{EOS}<|assistant|><think>Hm.</think>Yes.{EOS}<|assistant|>"
    assert subject(FIELDS)._fast.decode(tokens, skip_special_tokens=False) == expected
    assert tokens.count(0) == 2


@pytest.mark.parametrize("role", [f"user{EOS}", "<|assistant|>"])
def test_a_role_cannot_spell_special_tokens(role: str) -> None:
    tokens = subject(ANY).encode(Conversation((Message(role, "hi"),)))

    assert [token for token in tokens if token < 3] == [0, 2]


def test_calls_and_results_name_each_other_where_the_template_reads_it() -> None:
    template = AS_JSON.replace("{{ m.content }}", "{{ m.tool_call_id }}:{{ m.content }}").replace(
        "<tool_call>", "{{ c.id }}<tool_call>"
    )
    history = (Message("assistant", "", (ToolCall("now", "{}", "c1"),)), Message("tool", "12:00", tool_call_id="c1"))

    told = text(template, HI, *history)

    assert "c1<tool_call>" in told
    assert "c1:12:00" in told


def test_without_a_generation_prompt_nothing_is_opened() -> None:
    assert text(FIXED, HI, add_generation_prompt=False) == f"<|user|>hi{EOS}"


@pytest.mark.parametrize("content", ["The answer is", "The answer is ", f"a{EOS}b", ""])
@pytest.mark.parametrize("template", [FIXED, PARTS, FIXED.replace("m.content", "m.content | trim")])
def test_the_last_message_is_continued_as_transformers_does_it(template: str, content: str) -> None:
    tokenizer = subject(template)
    conversation = Conversation(
        (HI, Message("assistant", content)), add_generation_prompt=False, continue_final_message=True
    )
    parts = template == PARTS
    turns = [
        {"role": role, "content": [{"type": "text", "text": said}] if parts else said}
        for role, said in (("user", "hi"), ("assistant", content))
    ]
    hub: Any = tokenizer._hub  # transformers' own
    expected = hub.apply_chat_template(turns, continue_final_message=True, tokenize=False)

    tokens = tokenizer.encode(conversation)

    assert tokenizer._fast.decode(tokens, skip_special_tokens=False) == expected
    assert [token for token in tokens if token < 3] == [1, 0, 2]


def test_a_last_message_that_is_not_written_cannot_be_continued() -> None:
    last = Message("assistant", "The answer is")

    with pytest.raises(RequestError) as refusal:
        text(SILENT, HI, last, add_generation_prompt=False, continue_final_message=True)
    assert refusal.value.param == "continue_final_message"


@pytest.mark.parametrize(
    ("messages", "opened"),
    [
        ((HI,), True),
        ((), False),
        ((Message("tool", "12:00"),), False),
        ((Message("assistant", "a", (ToolCall("f", "{}"),)),), False),
    ],
)
def test_what_cannot_be_continued_is_refused(messages: tuple[Message, ...], opened: bool) -> None:
    with pytest.raises(RequestError) as refusal:
        Conversation(messages, add_generation_prompt=opened, continue_final_message=True)
    assert refusal.value.param == "continue_final_message"


VARIABLES = FIXED + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{{ note }}"


def test_a_client_may_set_variables_of_the_template() -> None:
    settings = (("enable_thinking", "false"), ("note", json.dumps(f"[{EOS}]")))

    tokens = subject(VARIABLES).encode(Conversation((HI,), template_kwargs=settings))

    assert (
        subject(VARIABLES)
        ._fast.decode(tokens, skip_special_tokens=False)
        .endswith(f"<|assistant|><think></think>[{EOS}]")
    )
    assert tokens.count(0) == 1
    assert text(VARIABLES, HI).endswith("<|assistant|>")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("messages", "[]"),
        ("tools", "[]"),
        ("add_generation_prompt", "false"),
        ("continue_final_message", "true"),
        ("chat_template", '"x"'),
        ("tokenize", "true"),
        ("conversation", "[]"),
        ("conversations", "[]"),
        ("self", "1"),
        ("namespace", "1"),
        ("documents", "1"),
        ("documents", '["a"]'),
        ("bos_token", '"x"'),
        ("raise_exception", "1"),
        ("a b", "1"),
        ("note", "{"),
        ("note", '"\\ud800"'),
        ("note", "[" * 80 + "]" * 80),
    ],
)
def test_variables_that_are_not_a_clients_to_set_are_refused(name: str, value: str) -> None:
    with pytest.raises(RequestError) as refusal:
        text(VARIABLES, HI, template_kwargs=((name, value),))
    assert refusal.value.param == "chat_template_kwargs"


def test_names_that_the_template_gets_anyway_are_those_of_transformers_and_jinja() -> None:
    called = (PreTrainedTokenizerBase.apply_chat_template, render_jinja_template, Template.render)
    parameters = {
        parameter.name
        for function in called
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    special = {*PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES, "additional_special_tokens"}
    names = (parameters | special | DEFAULT_NAMESPACE.keys()) - {"documents"}  # which a client may set

    assert names | {"messages", "raise_exception", "strftime_now"} == RESERVED_VARIABLES


def test_documents_reach_the_template() -> None:
    source = FIXED + "{% for document in documents or [] %}[{{ document.text }}]{% endfor %}"

    assert text(source, HI, template_kwargs=(("documents", '[{"text": "a"}]'),)).endswith("[a]")
    assert text(source, HI, template_kwargs=(("documents", "null"),)) == text(source, HI)


def test_conversations_can_be_hashed_and_sent_between_processes() -> None:
    conversation = Conversation((Message("user", "hi", name="Ann"),), template_kwargs=(("a", "1"),))

    assert pickle.loads(pickle.dumps(conversation)) == conversation
    assert len({conversation, Conversation((HI,))}) == 2
    assert conversation.characters == len("user") + len("hi") + len("Ann") + len("a") + len("1")
