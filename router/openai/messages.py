"""The request field ``messages`` of /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from engine.api import Message, ToolCall
from router.openai.validation import (
    MAX_LIST_ITEMS,
    Integer,
    StrictModel,
    Unsupported,
    ValidText,
    text_or_list_tag,
)

MAX_CALLS = 128  # tool calls of one message
MAX_ANNOTATIONS = 1024  # of one message; they are not shown to the model
MAX_PARTS = 8192  # content parts and tool calls of all messages together; each takes about 20 µs to check

FunctionName = Annotated[ValidText, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


class CacheControl(StrictModel):
    """Anthropic's field ``cache_control``, which marks a prefix for the prompt cache. It has no effect: the engine
    caches prefixes anyway.

    It is accepted because coding agents send it to every service.
    """

    type: Literal["ephemeral"]
    ttl: ValidText | None = None


class TextPart(StrictModel):
    """A content part of the type ``text``, the only one that is supported."""

    type: Literal["text"]
    text: ValidText
    cache_control: CacheControl | None = None


ContentField = Annotated[
    Annotated[ValidText, Tag("<text>")]
    | Annotated[list[TextPart], Field(max_length=MAX_LIST_ITEMS, fail_fast=True), Tag("<list>")],
    Discriminator(text_or_list_tag),
]


def joined_text(content: str | list[TextPart] | None) -> str:
    """Returns the text of ``content``: a string, the concatenated parts, or '' for None."""
    return "".join(part.text for part in content) if isinstance(content, list) else content or ""


class CalledFunction(StrictModel):
    """The function of a tool call, with its arguments."""

    name: FunctionName
    arguments: ValidText  # JSON; several clients send an empty string for no arguments
    parsed_arguments: Any = None  # OpenAI's library sends back what it has parsed of them; they are read over
    provider_specific_fields: Any = None  # LiteLLM's, as in ``ChatMessage``


class AssistantToolCall(StrictModel):
    """A tool call in an assistant's message, which the client sends back as history."""

    id: ValidText
    type: Literal["function"]
    function: CalledFunction
    index: Integer | None = None  # sent by clients that assemble the call from stream chunks
    provider_specific_fields: Any = None  # LiteLLM's, as in ``ChatMessage``


def check_part_count(messages: object) -> object:
    """Returns ``messages``. Raises ValueError for more than MAX_PARTS content parts and tool calls in all.

    A list longer than MAX_LIST_ITEMS is not counted here: the limit of its own field refuses it.
    """
    listed = messages[:MAX_LIST_ITEMS] if isinstance(messages, list) else []
    found = [message for message in listed if isinstance(message, dict)]
    members = [message.get(name) for message in found for name in ("content", "tool_calls")]
    lengths = [len(each) for each in members if isinstance(each, list)]
    if sum(length for length in lengths if length <= MAX_LIST_ITEMS) > MAX_PARTS:
        raise ValueError(f"must have at most {MAX_PARTS} parts and calls in all")
    return messages


class ChatMessage(StrictModel):
    """One message of the conversation."""

    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: ContentField | None = None
    name: ValidText | None = None
    refusal: Unsupported = None
    tool_calls: Annotated[list[AssistantToolCall], Field(max_length=MAX_CALLS, fail_fast=True)] | None = None
    tool_call_id: ValidText | None = None
    reasoning_content: ValidText | None = None
    reasoning: ValidText | None = None  # the same, as newer releases of vLLM call it
    cache_control: CacheControl | None = None
    audio: Unsupported = None
    function_call: Unsupported = None
    annotations: Annotated[list[Any], Field(max_length=MAX_ANNOTATIONS)] | None = None  # of answers that are sent back
    parsed: Any = None  # what OpenAI's library has made of the content; it is read over
    provider_specific_fields: Any = None  # what LiteLLM has got from another provider; they are read over

    @property
    def reasoning_text(self) -> str | None:
        """The reasoning in an assistant's message: ``reasoning_content``, or else ``reasoning``; None: it has none."""
        return self.reasoning if self.reasoning_content is None else self.reasoning_content

    @property
    def has_cache_control(self) -> bool:
        """Whether ``cache_control`` is set in the message or in one of its parts."""
        parts = self.content if isinstance(self.content, list) else ()
        return self.cache_control is not None or any(part.cache_control is not None for part in parts)

    def engine_message(self) -> Message:
        """Returns the message in the form that the engine gives to the chat template."""
        return Message(
            self.role,
            joined_text(self.content),
            tuple(ToolCall(call.function.name, call.function.arguments, call.id) for call in self.tool_calls or ()),
            name=self.name,
            reasoning_content=self.reasoning_text,
            tool_call_id=self.tool_call_id,
        )

    @model_validator(mode="after")
    def _fields_match_role(self) -> Self:
        if self.role != "assistant":
            for name in ("tool_calls", "reasoning_content", "reasoning"):
                if getattr(self, name):
                    raise PydanticCustomError("misplaced", "belongs to messages of the assistant", {"name": name})
        if self.content in (None, []) and self.role not in ("assistant", "tool"):
            # An answer and a tool's result may have been empty, and would otherwise end the conversation with them.
            message = "is required, unless the role is assistant or tool"
            raise PydanticCustomError("misplaced", message, {"name": "content"})
        if (self.tool_call_id is not None) != (self.role == "tool"):
            message = "is required where the role is tool, and misplaced elsewhere"
            raise PydanticCustomError("misplaced", message, {"name": "tool_call_id"})
        return self
