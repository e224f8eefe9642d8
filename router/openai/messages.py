"""The messages of a conversation, as OpenAI's clients send them."""

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
    kind_of_text,
    not_yet,
)

MAX_CALLS = 128  # of one message
MAX_MEMBERS = 8192  # parts and calls of all messages together: each takes some 20 µs to check

FunctionName = Annotated[ValidText, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


class CacheControl(StrictModel):
    """Anthropic's mark of what a prompt cache should keep; agents send it to every service. Prefixes are cached here
    without it."""

    type: Literal["ephemeral"]
    ttl: ValidText | None = None


class TextPart(StrictModel):
    type: Literal["text"]
    text: ValidText
    cache_control: CacheControl | None = None


ContentField = Annotated[
    Annotated[ValidText, Tag("<text>")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True), Tag("<list>")],
    Discriminator(kind_of_text),
]


def joined(content: str | list[TextPart] | None) -> str:
    """The text of a message; parts are joined."""
    return "".join(part.text for part in content) if isinstance(content, list) else content or ""


class CalledFunction(StrictModel):
    name: FunctionName
    arguments: ValidText  # JSON; empty, as several clients write it, stands for no arguments


class CallMade(StrictModel):
    """A call in a message of the assistant that is sent back."""

    id: ValidText
    type: Literal["function"]
    function: CalledFunction
    index: Integer | None = None  # of clients that put the chunks of a stream together


def few_members(messages: object) -> object:
    """Raises ValueError for messages that have too many parts and calls in all. A list that is too long itself is left
    to the limit of its own."""
    listed = messages[:MAX_LIST_ITEMS] if isinstance(messages, list) else []
    found = [message for message in listed if isinstance(message, dict)]
    members = [message.get(name) for message in found for name in ("content", "tool_calls")]
    lengths = [len(each) for each in members if isinstance(each, list)]
    if sum(length for length in lengths if length <= MAX_LIST_ITEMS) > MAX_MEMBERS:
        raise ValueError(f"must have at most {MAX_MEMBERS} parts and calls in all")
    return messages


class ChatMessage(StrictModel):
    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: ContentField | None = None
    name: ValidText | None = None
    refusal: Unsupported = None
    tool_calls: Annotated[list[CallMade], Field(max_length=MAX_CALLS, fail_fast=True)] | None = None
    tool_call_id: ValidText | None = None
    reasoning_content: ValidText | None = None
    reasoning: ValidText | None = None  # what newer releases of vLLM call it
    cache_control: CacheControl | None = None
    audio: Unsupported = None
    function_call: Unsupported = None
    annotations: Annotated[Any, not_yet([])] = None  # our own answers carry an empty list, and may be sent back

    @property
    def thought(self) -> str | None:
        """What the assistant thought before it answered, by whichever of its two names."""
        return self.reasoning if self.reasoning_content is None else self.reasoning_content

    @property
    def caches(self) -> bool:
        """Whether Anthropic's field for prompt caches is set somewhere in it."""
        parts = self.content if isinstance(self.content, list) else ()
        return self.cache_control is not None or any(part.cache_control is not None for part in parts)

    def plain(self) -> Message:
        """The message as the chat template sees it."""
        return Message(
            self.role,
            joined(self.content),
            tuple(ToolCall(call.function.name, call.function.arguments, call.id) for call in self.tool_calls or ()),
            name=self.name,
            reasoning_content=self.thought,
            tool_call_id=self.tool_call_id,
        )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.role != "assistant":
            for name in ("tool_calls", "reasoning_content", "reasoning"):
                if getattr(self, name):
                    raise PydanticCustomError("misplaced", "belongs to messages of the assistant", {"name": name})
        if self.content is None and not self.tool_calls and not self.thought:
            message = "is required, unless the message has calls or reasoning"
            raise PydanticCustomError("misplaced", message, {"name": "content"})
        if (self.tool_call_id is not None) != (self.role == "tool"):
            message = "is required where the role is tool, and misplaced elsewhere"
            raise PydanticCustomError("misplaced", message, {"name": "tool_call_id"})
        return self
