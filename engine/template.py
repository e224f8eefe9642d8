"""Conversations as the model's own chat template writes them.

Tools are described by the template itself if it knows how: Hermes' way (Qwen's and others'), a call being
``<tool_call>`` around a JSON object with a name and arguments. For any other template the same is said in a system
message, and calls and their results are told as text: whoever reads answers has one form of call to know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import TemplateError

from engine.api import CALL_BEGIN, CALL_END, Conversation, Message, RequestError, ToolCall

TOOLS_TOLD = (
    """\
You can call functions. Each of them is described by a line of JSON:
{tools}
To call one, write its name and arguments as JSON:
"""
    + CALL_BEGIN
    + """
{{"name": "...", "arguments": {{...}}}}
"""
    + CALL_END
)

Rewrite = Callable[[str], str]


class ChatTemplate:
    """Of ``hub``, a tokenizer of transformers."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._knows_tools = CALL_BEGIN in str(hub.chat_template or "")

    def render(self, conversation: Conversation, rewrite: Rewrite) -> str:
        """The conversation with the assistant's turn opened; ``rewrite`` is applied to all that it says before the
        template is. Raises RequestError where there is no template, or it refuses."""
        if not self._hub.chat_template:
            raise RequestError("The model has no chat template; send a text prompt instead", "messages")
        tools = [rewritten(json.loads(tool), rewrite) for tool in conversation.tools]
        messages = conversation.messages
        if self._knows_tools:
            turns = [_turn(message, rewrite) for message in messages]
        else:
            turns = [{"role": m.role, "content": m.content} for m in _as_text(messages, rewrite)]
            turns, tools = _introduced(turns, tools), []
        try:
            return str(
                self._hub.apply_chat_template(turns, tools=tools or None, tokenize=False, add_generation_prompt=True)
            )
        except TemplateError as error:  # templates refuse with raise_exception, for example two user turns in a row
            raise RequestError(f"The model's chat template refuses these messages: {error}", "messages") from error


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
    """As an object, which templates write as JSON; what is none stays text."""
    try:
        return json.loads(call.arguments)
    except ValueError:
        return call.arguments


def _as_text(messages: Sequence[Message], rewrite: Rewrite) -> list[Message]:
    """Calls told by the assistant, and their results by the user, all of a turn together."""
    told: list[Message] = []
    for message in messages:
        calls = [
            f'{CALL_BEGIN}\n{{"name": {json.dumps(rewrite(c.name), ensure_ascii=False)}, '
            f'"arguments": {rewrite(c.arguments)}}}\n{CALL_END}'
            for c in message.tool_calls
        ]
        content = "\n".join([*([rewrite(message.content)] if message.content else []), *calls])
        if message.role == "tool":
            content = f"<tool_response>\n{content}\n</tool_response>"
            if told and told[-1].role == "tool":
                content = f"{told.pop().content}\n{content}"
        told.append(Message(message.role, content))
    return [Message("user", one.content) if one.role == "tool" else one for one in told]


def _introduced(turns: list[dict[str, Any]], tools: Sequence[Any]) -> list[dict[str, Any]]:
    """With the tools told in the system message."""
    if not tools:
        return turns
    said = TOOLS_TOLD.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    if turns and turns[0]["role"] in ("system", "developer"):
        return [{**turns[0], "content": f"{turns[0]['content']}\n\n{said}"}, *turns[1:]]
    return [{"role": "system", "content": said}, *turns]
