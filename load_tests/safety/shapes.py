"""The ways in which a text can reach the model: every endpoint with every kind of field, streamed or not; and what a
response says became of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

CHAT, COMPLETIONS, MODERATIONS = "/v1/chat/completions", "/v1/completions", "/v1/moderations"

REFUSED = frozenset({"content_filter", "review_required"})
"""The codes of errors with which a policy refuses a request."""

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """A way in. ``body`` makes the request of a text."""

    name: str
    path: str
    body: Callable[[str], Body]


def _chat(*messages: Body, **more: Any) -> Body:
    return {"messages": list(messages), "max_completion_tokens": 1, **more}


def _user(content: Any) -> Body:
    return {"role": "user", "content": content}


def _tool_result(text: str) -> Body:
    call = {"id": "call_1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    return _chat(_user("Read it."), asked, {"role": "tool", "tool_call_id": "call_1", "content": text})


def _arguments(text: str) -> Body:
    arguments = json.dumps({"q": text})
    call = {"id": "call_1", "type": "function", "function": {"name": "read", "arguments": arguments}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    return _chat(_user("Go on."), asked, {"role": "tool", "tool_call_id": "call_1", "content": "done"})


def _tool(text: str) -> Body:
    function = {"name": "read", "description": text, "parameters": {"type": "object", "properties": {}}}
    return _chat(_user("Hello"), tools=[{"type": "function", "function": function}])


def _document(text: str) -> Body:
    documents = [{"title": "A page", "text": text}]
    return _chat(_user("Sum it up."), chat_template_kwargs={"documents": documents})


def _streamed(body: Callable[[str], Body]) -> Callable[[str], Body]:
    return lambda text: body(text) | {"stream": True}


def _message(text: str) -> Body:
    return _chat(_user(text))


def _prompt(text: str) -> Body:
    return {"prompt": text, "max_tokens": 1}


SHAPES = (
    Shape("chat", CHAT, _message),
    Shape("chat, streamed", CHAT, _streamed(_message)),
    Shape("chat, parts", CHAT, lambda text: _chat(_user([{"type": "text", "text": text}]))),
    Shape(
        "chat, earlier turn", CHAT, lambda text: _chat(_user(text), {"role": "assistant", "content": "?"}, _user("Go"))
    ),
    Shape("tool result", CHAT, _tool_result),
    Shape("tool arguments", CHAT, _arguments),
    Shape("tool description", CHAT, _tool),
    Shape("document", CHAT, _document),
    Shape("completion", COMPLETIONS, _prompt),
    Shape("completion, streamed", COMPLETIONS, _streamed(_prompt)),
    Shape("completion, of two", COMPLETIONS, lambda text: {"prompt": ["Once", text], "max_tokens": 1}),
    Shape("moderation", MODERATIONS, lambda text: {"input": text}),
)


def was_flagged(shape: Shape, status: int, text: str) -> bool | None:
    """Returns whether a response says that the request, or its answer, was flagged; None if it says neither."""
    if status != 200:
        return True if status == 400 and _error_code(text) in REFUSED else None
    if shape.path == MODERATIONS:
        return any(each["flagged"] or each["injection"]["flagged"] for each in json.loads(text)["results"])
    return any(reason == "content_filter" for reason in _reasons(text))


def _error_code(text: str) -> str | None:
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return None
    return error.get("code") if isinstance(error, Mapping) else None


def _reasons(text: str) -> list[str]:
    """Returns the finish reasons of a whole response, or of a stream."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    documents = [json.loads(line) for line in lines if line != "[DONE]"] if lines else [json.loads(text)]
    return [choice["finish_reason"] for each in documents for choice in each.get("choices", ())]
