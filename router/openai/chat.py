"""The wire format of /v1/chat/completions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from json.encoder import encode_basestring_ascii as quote
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from engine.api import MAX_LOGPROBS, Conversation, FinishReason, Grammar, Message, TokenLogprobs, ToolCall, Usage
from router.answer import Answer
from router.call import InferenceRequest
from router.errors import RefusalError
from router.events import AnswerEvent, Ended, Finished, Opened, Stamp, Text, ToolCallArguments, ToolCallStart
from router.openai.chunk import ChunkTemplate, usage_fields
from router.openai.errors import error_body
from router.openai.fields import GenerationFields
from router.openai.logprobs import chat_logprobs, prompt_fields
from router.openai.response_format import ResponseFormat, grammar_of_format
from router.openai.tools import MAX_TOOLS, CallMade, Tool, ToolChoice, use_of
from router.openai.validation import (
    MAX_LIST_ITEMS,
    StrictModel,
    Unsupported,
    ValidText,
    few_pairs,
    kind_of_text,
    not_yet,
    parse,
)
from router.tool_grammar import ToolUse


class TextPart(StrictModel):
    type: Literal["text"]
    text: ValidText


ContentField = Annotated[
    Annotated[ValidText, Tag("<text>")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True), Tag("<list>")],
    Discriminator(kind_of_text),
]


class ChatMessage(StrictModel):
    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: ContentField | None = None
    name: ValidText | None = None
    refusal: Unsupported = None
    tool_calls: Annotated[list[CallMade], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_call_id: ValidText | None = None
    audio: Unsupported = None
    function_call: Unsupported = None
    annotations: Annotated[Any, not_yet([])] = None  # our own answers carry an empty list, and may be sent back

    def plain(self) -> Message:
        """The message as the chat template sees it; text parts are joined."""
        calls = tuple(ToolCall(call.function.name, call.function.arguments) for call in self.tool_calls or ())
        if isinstance(self.content, list):
            return Message(self.role, "".join(part.text for part in self.content), calls)
        return Message(self.role, self.content or "", calls)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError("misplaced", "belongs to messages of the assistant", {"name": "tool_calls"})
        if self.content is None and not self.tool_calls:
            raise PydanticCustomError("misplaced", "is required, unless the message has calls", {"name": "content"})
        if (self.tool_call_id is not None) != (self.role == "tool"):
            message = "is required where the role is tool, and misplaced elsewhere"
            raise PydanticCustomError("misplaced", message, {"name": "tool_call_id"})
        return self


class ChatRequest(GenerationFields):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True)]
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31)
    response_format: ResponseFormat | None = None
    service_tier: Literal["auto", "default"] | None = None
    metadata: Annotated[dict[ValidText, ValidText], BeforeValidator(few_pairs)] | None = None
    safety_identifier: ValidText | None = None
    prompt_cache_key: ValidText | None = None
    store: Annotated[Any, not_yet(False)] = None
    modalities: Annotated[Any, not_yet(["text"])] = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None  # without tools it asks for nothing
    functions: Annotated[Any, not_yet([])] = None
    function_call: Unsupported = None
    prediction: Unsupported = None
    audio: Unsupported = None
    web_search_options: Unsupported = None
    reasoning_effort: Unsupported = None
    verbosity: Unsupported = None
    moderation: Unsupported = None

    @model_validator(mode="after")
    def _logprobs_are_wanted(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise PydanticCustomError("misplaced", "needs 'logprobs' to be true", {"name": "top_logprobs"})
        return self

    @model_validator(mode="after")
    def _tools_are_known(self) -> Self:
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise PydanticCustomError("misplaced", "has two tools of one name", {"name": "tools"})
        if self.tool_choice is not None and not names:
            raise PydanticCustomError("misplaced", "needs 'tools'", {"name": "tool_choice"})
        return self

    @property
    def tool_use(self) -> ToolUse | None:
        """What the answer may call. Raises PydanticCustomError for a choice that is none of the tools."""
        return use_of(self.tools or (), self.tool_choice, self.parallel_tool_calls)

    @property
    def forms(self) -> dict[str, Grammar]:
        """OpenAI's own fields beside those of vLLM."""
        form, use = grammar_of_format(self.response_format), self.tool_use
        calls = {} if use is None else {"tools": use.grammar}
        return (
            calls
            | super().forms
            | ({} if form is None else {"response_format": replace(form, param="response_format")})
        )

    @property
    def answer_limit(self) -> int | None:
        """The most tokens of the answer, by whichever of its two names."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        """As the engine counts them."""
        return (self.top_logprobs or 0) if self.logprobs else None


class ChatEndpoint:
    """POST /v1/chat/completions as OpenAI defines it."""

    def parse(self, body: bytes) -> InferenceRequest:
        """Raises InvalidRequestError."""
        request = parse(ChatRequest, body)
        sampling = request.sampling(request.answer_limit, request.wanted_logprobs)
        return request.inference(
            [_conversation(request)],
            sampling,
            "messages",
            partial(ChatWriter, request),
            parses_tool_calls=request.tool_use is not None,
        )

    def error(self, refusal: RefusalError) -> str:
        return error_body(refusal)


def _conversation(request: ChatRequest) -> Conversation:
    offered = request.tools if request.tools and request.tool_choice != "none" else ()
    tools = tuple(tool.model_dump_json(exclude_none=True) for tool in offered)
    return Conversation(tuple(message.plain() for message in request.messages), tools)


class ChatWriter:
    """Writes the answer to one request for chat completions. All of a chunk but its text is serialised once."""

    def __init__(self, request: ChatRequest, stamp: Stamp) -> None:
        self._request = request
        self._id = f"chatcmpl-{stamp.id}"
        self._stamp = stamp
        self._chunk = ChunkTemplate("chat.completion.chunk", self._id, stamp, request.include_usage)
        self._text_head = self._head_of(0)
        self._text_tail = '},"logprobs":null,"finish_reason":null}' + self._chunk.tail

    def chunks(self, events: Sequence[AnswerEvent]) -> list[str]:
        """A chunk for each event of a choice."""
        chunks: list[str] = []
        for event in events:
            match event:
                case Text():
                    chunks.append(self._content(event))
                case ToolCallStart() | ToolCallArguments():
                    chunks.append(self._call(event))
                case Opened(choice):
                    delta = '{"role":"assistant","content":"","refusal":null}'
                    chunks.append(self._of_choice(choice, delta, "null", "null"))
                case Ended(choice, reason, called):
                    chunks.append(self._of_choice(choice, "{}", "null", f'"{_reason(reason, called)}"'))
                case Finished(usage):
                    chunks += self._chunk.last(usage)
        return chunks

    def whole(self, answers: Sequence[Answer], usage: Usage) -> str:
        """The body of an answer that is not streamed."""
        document = {
            "id": self._id,
            "object": "chat.completion",
            "created": self._stamp.created,
            "model": self._stamp.model,
            "choices": [_choice(answer) for answer in answers],
            "usage": usage_fields(usage),
            **_prompt_logprobs(answers),
        }
        return json.dumps(document)

    def _head_of(self, index: int) -> str:
        return f'{self._chunk.head}{{"index":{index},"delta":{{"content":'

    def _content(self, event: Text) -> str:
        head = self._text_head if event.choice == 0 else self._head_of(event.choice)
        if event.logprobs is None:
            return f"{head}{quote(event.text)}{self._text_tail}"
        return (
            f'{head}{quote(event.text)}}},"logprobs":{_scores(event.logprobs)},"finish_reason":null}}{self._chunk.tail}'
        )

    def _call(self, event: ToolCallStart | ToolCallArguments) -> str:
        if isinstance(event, ToolCallStart):
            function = {"name": event.name, "arguments": ""}
            call: dict[str, Any] = {"index": event.call, "id": event.id, "type": "function", "function": function}
        else:
            call = {"index": event.call, "function": {"arguments": event.text}}
        delta = json.dumps({"tool_calls": [call]}, separators=(",", ":"))
        return self._of_choice(event.choice, delta, _scores(event.logprobs), "null")

    def _of_choice(self, index: int, delta: str, logprobs: str, reason: str) -> str:
        choice = f'"index":{index},"delta":{delta},"logprobs":{logprobs},"finish_reason":{reason}'
        return f"{self._chunk.head}{{{choice}}}{self._chunk.tail}"


def _scores(logprobs: tuple[TokenLogprobs, ...] | None) -> str:
    return "null" if logprobs is None else json.dumps(chat_logprobs(logprobs), separators=(",", ":"))


def _choice(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
    if answer.tool_calls:
        message["content"] = answer.text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.tool_calls
        ]
    return {
        "index": answer.index,
        "message": message,
        "logprobs": None if answer.logprobs is None else chat_logprobs(answer.logprobs),
        "finish_reason": _reason(answer.finish_reason, answer.called),
    }


def _reason(reason: FinishReason, called: bool) -> str:
    return "tool_calls" if called and reason is FinishReason.STOP else reason.value


def _prompt_logprobs(answers: Sequence[Answer]) -> dict[str, Any]:
    """vLLM's member; absent unless it was asked for, since OpenAI's clients do not know it."""
    scored = answers[0].prompt_logprobs if answers else None
    return {} if scored is None else {"prompt_logprobs": prompt_fields(scored)}
