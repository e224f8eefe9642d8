"""Prompts of requests: conversations, their messages and tool calls. A chat template renders them."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import RequestError

TOOL_CALL_START, TOOL_CALL_END = "<tool_call>", "</tool_call>"
"""The marks that a model writes around a tool call in the Hermes format, which Qwen and others are trained on."""

MAX_JSON_DEPTH = 64
"""Deepest nesting of lists and objects in a tool's description. Chat templates and JSON writers recurse once per level.
"""


def is_plain_json(value: object, depth: int = MAX_JSON_DEPTH) -> bool:
    """Returns whether a JSON value is nested at most ``depth`` levels deep, and all its strings and names are valid
    Unicode."""
    if isinstance(value, str):
        return _is_unicode(value)
    if isinstance(value, dict):
        return depth > 0 and all(is_plain_json(name) and is_plain_json(each, depth - 1) for name, each in value.items())
    if isinstance(value, list):
        return depth > 0 and all(is_plain_json(each, depth - 1) for each in value)
    return True


def _is_unicode(text: str) -> bool:
    """Returns whether a string has no unpaired surrogate. Encodes it once, since a loop over the characters takes 30
    times as long."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function call that the assistant made. ``arguments`` is JSON text; the tool's message refers to the call by its
    ``id``."""

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, as the chat template gets it. A tool's result has the role ``tool`` and names its
    call in ``tool_call_id``. ``name`` distinguishes speakers with the same role. ``reasoning_content`` is the reasoning
    before the assistant's answer. The template gets the fields that are not None, and may ignore them."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    reasoning_content: str | None = None
    tool_call_id: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of the message that are not empty: role, content, names, reasoning, ids, and those of its tool
        calls."""
        own = (self.role, self.content, self.name, self.reasoning_content, self.tool_call_id)
        calls = (text for call in self.tool_calls for text in (call.name, call.arguments, call.id))
        return tuple(text for text in (*own, *calls) if text)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt of messages, which the model's chat template renders. Each of ``tools`` is the JSON of a function
    description as in the OpenAI API. ``template_kwargs`` are further variables of the template, as pairs of a name and
    a JSON value.

    ``add_generation_prompt`` opens the assistant's turn after the last message. ``continue_final_message`` leaves the
    last message open, so that the answer continues it; the two exclude each other. Both names are transformers'.

    Raises RequestError, naming the field, if both are set or the last message is no text that can be continued.
    """

    messages: tuple[Message, ...]
    tools: tuple[str, ...] = ()
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    template_kwargs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.continue_final_message:
            return
        if self.add_generation_prompt:
            words = "continue_final_message and add_generation_prompt exclude each other."
            raise RequestError(words, "continue_final_message")
        last = self.messages[-1] if self.messages else None
        if last is None or last.role == "tool" or last.tool_calls:
            raise RequestError("Only a last message of text can be continued.", "continue_final_message")

    @property
    def characters(self) -> int:
        """Number of characters in all texts of the conversation: messages, tools and template variables."""
        variables = sum(len(name) + len(value) for name, value in self.template_kwargs)
        said = sum(len(text) for message in self.messages for text in message.texts)
        return said + sum(map(len, self.tools)) + variables


Prompt = str | tuple[int, ...] | Conversation
"""A prompt: text, token ids, or a conversation."""
