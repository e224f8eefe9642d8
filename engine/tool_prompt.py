"""Writes tools as plain text for chat templates that do not support tools: their descriptions, calls and results become
text of messages.

Calls are written in the Hermes format (used by Qwen and others), as by templates that support tools, so that the parser
of answers needs to know one format only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from engine.api import TOOL_CALL_END, TOOL_CALL_START, Message

Rewrite = Callable[[str], str]

INTRODUCTION = (
    """\
You can call functions. Each of them is described by a line of JSON:
{tools}
To call one, write its name and arguments as JSON:
"""
    + TOOL_CALL_START
    + """
{{"name": "...", "arguments": {{...}}}}
"""
    + TOOL_CALL_END
)

RESULT_START, RESULT_END = "<tool_response>", "</tool_response>"


def without_arguments(arguments: str) -> bool:
    """Returns whether the arguments of a call are absent: several servers send "" or null for a function without
    parameters."""
    return arguments.strip() in ("", "null")


def as_text(messages: Sequence[Message], rewrite: Rewrite) -> list[Message]:
    """Returns ``messages`` without tool calls and tool messages. A call becomes text of its assistant message.
    Consecutive results become one user message, together with the user message after them. ``rewrite`` is applied to
    all strings of the client."""
    turns: list[Message] = []
    for message in messages:
        calls = [
            f'{TOOL_CALL_START}\n{{"name": {json.dumps(rewrite(c.name), ensure_ascii=False)}, '
            f'"arguments": {_arguments(c.arguments, rewrite)}}}\n{TOOL_CALL_END}'
            for c in message.tool_calls
        ]
        content = "\n".join([*([rewrite(message.content)] if message.content else []), *calls])
        if message.role == "tool":
            content = f"{RESULT_START}\n{content}\n{RESULT_END}"
            if turns and turns[-1].role == "tool":
                content = f"{turns.pop().content}\n{content}"
            turns.append(Message("tool", content))
            continue
        name, reasoning = (
            None if said is None else rewrite(said) for said in (message.name, message.reasoning_content)
        )
        turns.append(Message(rewrite(message.role), content, name=name, reasoning_content=reasoning))
    return _joined([replace(one, role="user") if one.role == "tool" else one for one in turns])


def introduced(turns: list[dict[str, Any]], tools: Sequence[Any], role: str) -> list[dict[str, Any]]:
    """Returns ``turns`` with the descriptions of ``tools`` at the beginning: in the first message if that is a system
    message or, with ``role`` "user", a user message; else in a new message of ``role``."""
    said = INTRODUCTION.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    if turns and turns[0]["role"] in ("system", "developer"):
        return [{**turns[0], "content": f"{turns[0]['content']}\n\n{said}"}, *turns[1:]]
    if role == "user" and turns and turns[0]["role"] == "user":
        return [{**turns[0], "content": f"{said}\n\n{turns[0]['content']}"}, *turns[1:]]
    return [{"role": role, "content": said}, *turns]


def _arguments(arguments: str, rewrite: Rewrite) -> str:
    """Returns the arguments of a call as JSON text, with ``rewrite`` applied."""
    return "{}" if without_arguments(arguments) else rewrite(arguments)


def _joined(messages: list[Message]) -> list[Message]:
    """Joins a message with tool results and the user message after it, because templates may refuse two in a row."""
    turns: list[Message] = []
    for message in messages:
        if turns and message.role == "user" == turns[-1].role and turns[-1].content.endswith(RESULT_END):
            message = replace(message, content=f"{turns.pop().content}\n{message.content}")
        turns.append(message)
    return turns
