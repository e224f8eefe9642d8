"""Tools in words, for chat templates that do not know them: descriptions, calls and results as text of messages.

The form of a call is Hermes' (Qwen's and others'), the same that templates with tools write: a parser of answers has
one form to know.
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
    """Whether the arguments of a call are none: several servers write "" or null for a function without parameters."""
    return arguments.strip() in ("", "null")


def as_text(messages: Sequence[Message], rewrite: Rewrite) -> list[Message]:
    """Calls as text of the assistant, and their results as text of the user, all of a turn together. ``rewrite`` is
    applied to all that a message says."""
    told: list[Message] = []
    for message in messages:
        calls = [
            f'{TOOL_CALL_START}\n{{"name": {json.dumps(rewrite(c.name), ensure_ascii=False)}, '
            f'"arguments": {_arguments(c.arguments, rewrite)}}}\n{TOOL_CALL_END}'
            for c in message.tool_calls
        ]
        content = "\n".join([*([rewrite(message.content)] if message.content else []), *calls])
        if message.role == "tool":
            content = f"{RESULT_START}\n{content}\n{RESULT_END}"
            if told and told[-1].role == "tool":
                content = f"{told.pop().content}\n{content}"
            told.append(Message("tool", content))
            continue
        name, reasoning = (
            None if said is None else rewrite(said) for said in (message.name, message.reasoning_content)
        )
        told.append(Message(rewrite(message.role), content, name=name, reasoning_content=reasoning))
    return _joined([replace(one, role="user") if one.role == "tool" else one for one in told])


def introduced(turns: list[dict[str, Any]], tools: Sequence[Any], role: str) -> list[dict[str, Any]]:
    """``turns`` with the tools described at the beginning, by a message of this role."""
    said = INTRODUCTION.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    if turns and turns[0]["role"] in ("system", "developer"):
        return [{**turns[0], "content": f"{turns[0]['content']}\n\n{said}"}, *turns[1:]]
    if role == "user" and turns and turns[0]["role"] == "user":
        return [{**turns[0], "content": f"{said}\n\n{turns[0]['content']}"}, *turns[1:]]
    return [{"role": role, "content": said}, *turns]


def _arguments(arguments: str, rewrite: Rewrite) -> str:
    return "{}" if without_arguments(arguments) else rewrite(arguments)


def _joined(messages: list[Message]) -> list[Message]:
    """A result and what the user says after it in one turn: templates may refuse two of one role."""
    turns: list[Message] = []
    for message in messages:
        if turns and message.role == "user" == turns[-1].role and turns[-1].content.endswith(RESULT_END):
            message = replace(message, content=f"{turns.pop().content}\n{message.content}")
        turns.append(message)
    return turns
