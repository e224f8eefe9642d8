"""A body within the size limit, made to be slow: its refusal must not hold up the streams of everybody else."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from router.config.auto import AutoConfig
from router.config.router import RouterConfig
from router.errors import InvalidRequestError
from router.openai.chat import ChatEndpoint
from router.openai.completions import CompletionEndpoint
from router.tiers.choose_tier import TierChoice, choose_tier

SIZE = RouterConfig.model_fields["max_body_bytes"].default - 200
LIMIT_S = 1.5  # all of these take 0.1 to 0.3 s, most of it in reading the JSON; unbounded, 6 to 9 s
QUICK_S = 1.0  # these take 0.02 to 0.3 s alone; unbounded, 0.8 to 8 s
ONES = "1," * (SIZE // 2 - 50) + "1"
NAMES = ",".join(f'"{i}":1' for i in range(300_000))


def user(content: str) -> str:
    return f'{{"model":"fast","messages":[{{"role":"user","content":{content}}}]}}'


@pytest.mark.parametrize(
    ("form", "body", "param"),
    [
        (ChatEndpoint(), f'{{"model":"fast","messages":[{ONES}]}}', "messages[0]"),
        (ChatEndpoint(), user(f"[{ONES}]"), "messages[0].content[0]"),
        (ChatEndpoint(), user(f'"x",{NAMES}'), "messages[0].0"),
        (ChatEndpoint(), f'{{{NAMES},"model":"fast","messages":[]}}', "0"),
        (ChatEndpoint(), user('"x"')[:-1] + f',"metadata":{{{NAMES}}}}}', "metadata"),
        (ChatEndpoint(), user('"x"')[:-1] + f',"stop":[{ONES}]}}', "stop[0]"),
        (ChatEndpoint(), user('"x"')[:-1] + f',"stop_token_ids":[{ONES}]}}', "stop_token_ids"),
        (CompletionEndpoint(), f'{{"model":"fast","prompt":["a",{ONES}]}}', "prompt[1]"),
        (CompletionEndpoint(), f'{{"model":"fast","prompt":[[1],{ONES}]}}', "prompt[1]"),
        (CompletionEndpoint(), f'{{"model":"fast","prompt":[1,"a",{ONES}]}}', "prompt[1]"),
    ],
    ids=["messages", "parts", "message", "names", "metadata", "stop", "stop-ids", "texts", "lists", "tokens"],
)
def test_a_refusal_is_quick(form: ChatEndpoint | CompletionEndpoint, body: str, param: str) -> None:
    raw = body.encode()
    started = time.process_time()
    with pytest.raises(InvalidRequestError) as refused:
        form.parse(raw)
    assert time.process_time() - started < LIMIT_S
    assert refused.value.field == param


def tool(name: str, parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def option(place: int) -> dict[str, Any]:
    return {"type": "object", "required": ["k"], "properties": {"k": {"const": f"v{place}"}, "a": {"type": "string"}}}


EXCLUSIVE = {"type": "object", "properties": {"x": {"oneOf": [option(place) for place in range(60)]}}}
LARGE = {"type": "object", "description": "x" * 65_000}
CHOICES = [f"{place:04}" + "a-/é" * 500 for place in range(1000)]
CALL = {"id": "", "type": "function", "function": {"name": "f", "arguments": ""}}
PARTS = {"role": "user", "content": [{"type": "text", "text": "a"}] * 2000}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_choice": CHOICES, "tools": [tool("f", {})]}, "guided_choice"),
        ({"structured_outputs": {"choice": CHOICES}}, "structured_outputs.choice"),
        ({"tools": [tool(f"f{place}", EXCLUSIVE) for place in range(60)]}, "tools"),
        ({"tools": [tool(f"f{place}", EXCLUSIVE) for place in range(10)]}, None),
        ({"tools": [tool(f"f{place}", LARGE) for place in range(62)], "tool_choice": "none"}, "tools"),
        ({"tools": [tool("f", LARGE)], "guided_json": LARGE, "tool_choice": "none"}, "tools"),
        ({"tools": [tool("f", {"enum": [1] * 1_000_000})]}, "tools[0].function.parameters"),
        ({"chat_template_kwargs": {"a": [1] * 1_000_000}}, "chat_template_kwargs"),
        ({"messages": [PARTS] * 60}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL] * 128}] * 350}, "messages"),
    ],
    ids=["choices", "outputs", "options", "few-options", "none", "form", "enum", "variables", "parts", "calls"],
)
def test_what_a_body_asks_for_is_bounded(fields: dict[str, Any], param: str | None) -> None:
    messages = [{"role": "user", "content": "x"}]
    raw = json.dumps({"model": "fast", "messages": messages} | fields, ensure_ascii=False).encode()
    assert len(raw) < SIZE + 100_000
    refused: InvalidRequestError | None = None
    started = time.process_time()
    try:
        ChatEndpoint().parse(raw)
    except InvalidRequestError as error:
        refused = error
    took = time.process_time() - started
    assert (refused and refused.field) == param
    assert took < QUICK_S


def test_many_long_prompts_are_judged_in_the_time_of_one() -> None:
    started = time.process_time()
    choose_tier("auto", ["lorem ipsum 1 dolor " * 3000] * 64, None, TierChoice(("fast", "balanced"), AutoConfig()))
    assert time.process_time() - started < 0.2
