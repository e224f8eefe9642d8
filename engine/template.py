"""Conversations as the model's own chat template writes them.

Tools are described by the template itself if it knows how: Hermes' way (Qwen's and others'), a call being
``<tool_call>`` around a JSON object with a name and arguments. For any other template the same is said in a system
message, and calls and their results are told as text: whoever reads answers has one form of call to know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import TemplateError

from engine.api import (
    MAX_JSON_DEPTH,
    TOOL_CALL_END,
    TOOL_CALL_START,
    Conversation,
    Message,
    RequestError,
    ToolCall,
    is_plain_json,
)

TOOLS_TOLD = (
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

RESULT_END = "</tool_response>"
Rewrite = Callable[[str], str]


class ChatTemplate:
    """Of ``hub``, a tokenizer of transformers."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        told = str(hub.chat_template or "")
        # Others have the same mark around something else than a name and arguments in JSON.
        self._knows_tools = (
            TOOL_CALL_START in told and re.search(r'"name\\?":.*"arguments\\?":', told, re.DOTALL) is not None
        )

    def render(self, conversation: Conversation, rewrite: Rewrite) -> str:
        """The conversation with the assistant's turn opened; ``rewrite`` is applied to all that it says before the
        template is. Raises RequestError where there is no template, or it refuses."""
        if not self._hub.chat_template:
            raise RequestError("The model has no chat template; send a text prompt instead", "messages")
        tools = [rewritten(_loaded(tool), rewrite) for tool in conversation.tools]
        if self._knows_tools:
            return self._apply([_turn(message, rewrite) for message in conversation.messages], tools)
        turns = [{"role": m.role, "content": m.content} for m in _as_text(conversation.messages, rewrite)]
        if not tools:
            return self._apply(turns, [])
        try:
            return self._apply(_introduced(turns, tools, "system"), [])
        except RequestError:  # there are templates without system messages
            return self._apply(_introduced(turns, tools, "user"), [])

    def _apply(self, turns: list[dict[str, Any]], tools: list[Any]) -> str:
        try:
            return str(
                self._hub.apply_chat_template(turns, tools=tools or None, tokenize=False, add_generation_prompt=True)
            )
        except TemplateError as error:  # templates refuse with raise_exception, for example two user turns in a row
            raise RequestError(f"The model's chat template refuses these messages: {error}", "messages") from error
        except Exception as error:  # the template is the model's own code, and runs on what a client has sent
            kind = type(error).__name__
            raise RequestError(f"The model's chat template fails on these messages: {kind}", "messages") from error


def rewritten(value: Any, rewrite: Rewrite) -> Any:
    """JSON with all its strings rewritten."""
    if isinstance(value, str):
        return rewrite(value)
    if isinstance(value, list):
        return [rewritten(each, rewrite) for each in value]
    if isinstance(value, dict):
        return {rewrite(name): rewritten(each, rewrite) for name, each in value.items()}
    return value


def _turn(message: Message, rewrite: Rewrite) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": rewrite(message.content)}
    if message.tool_calls:
        calls = [{"name": rewrite(c.name), "arguments": rewritten(_arguments(c), rewrite)} for c in message.tool_calls]
        turn["tool_calls"] = [{"type": "function", "function": call} for call in calls]
    return turn


def _arguments(call: ToolCall) -> Any:
    """As an object, which templates write as JSON; what is none, or none that can be written, stays text."""
    try:
        loaded = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments
    return loaded if isinstance(loaded, dict) and is_plain_json(loaded) else call.arguments


def _loaded(tool: str) -> Any:
    """The description of a tool. Raises RequestError for what is none."""
    try:
        loaded = json.loads(tool)
    except (ValueError, RecursionError) as error:
        raise RequestError("A tool is described by JSON.", "tools") from error
    if not is_plain_json(loaded):
        raise RequestError(f"Tools are nested at most {MAX_JSON_DEPTH} deep, and their text is Unicode.", "tools")
    return loaded


def _as_text(messages: Sequence[Message], rewrite: Rewrite) -> list[Message]:
    """Calls told by the assistant, and their results by the user, all of a turn together."""
    told: list[Message] = []
    for message in messages:
        calls = [
            f'{TOOL_CALL_START}\n{{"name": {json.dumps(rewrite(c.name), ensure_ascii=False)}, '
            f'"arguments": {rewrite(c.arguments)}}}\n{TOOL_CALL_END}'
            for c in message.tool_calls
        ]
        content = "\n".join([*([rewrite(message.content)] if message.content else []), *calls])
        if message.role == "tool":
            content = f"<tool_response>\n{content}\n{RESULT_END}"
            if told and told[-1].role == "tool":
                content = f"{told.pop().content}\n{content}"
        told.append(Message(message.role, content))
    return _joined([Message("user", one.content) if one.role == "tool" else one for one in told])


def _joined(messages: list[Message]) -> list[Message]:
    """A result and what the user says after it in one turn: templates may refuse two of one role."""
    turns: list[Message] = []
    for message in messages:
        if turns and message.role == "user" == turns[-1].role and turns[-1].content.endswith(RESULT_END):
            message = Message("user", f"{turns.pop().content}\n{message.content}")
        turns.append(message)
    return turns


def _introduced(turns: list[dict[str, Any]], tools: Sequence[Any], role: str) -> list[dict[str, Any]]:
    """With the tools told at the beginning, by a message of this role."""
    said = TOOLS_TOLD.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    if turns and turns[0]["role"] in ("system", "developer"):
        return [{**turns[0], "content": f"{turns[0]['content']}\n\n{said}"}, *turns[1:]]
    if role == "user" and turns and turns[0]["role"] == "user":
        return [{**turns[0], "content": f"{said}\n\n{turns[0]['content']}"}, *turns[1:]]
    return [{"role": role, "content": said}, *turns]
