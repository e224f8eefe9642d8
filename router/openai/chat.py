"""The wire format of /v1/chat/completions."""

from __future__ import annotations

import json
from collections import defaultdict
from json.encoder import encode_basestring_ascii as quote
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from engine.api import (
    MAX_LOGPROBS,
    Conversation,
    FinishReason,
    Grammar,
    Message,
    Prompt,
    SamplingParams,
    TokenLogprobs,
    ToolCall,
    Usage,
)
from router.openai.endpoint import Answer, Stamp, usage_fields
from router.openai.fields import GenerationFields
from router.openai.logprobs import chat_logprobs, prompt_fields
from router.openai.response_format import ResponseFormat, grammar_of_format
from router.openai.tool_parser import CallArguments, CallBegun, Content, Piece, ToolCallParser, read_calls
from router.openai.tools import MAX_TOOLS, CallMade, Tool, ToolChoice, ToolUse, use_of
from router.openai.validation import (
    MAX_LIST_ITEMS,
    StrictModel,
    Text,
    Unsupported,
    few_pairs,
    kind_of_text,
    not_yet,
    parse,
)


class TextPart(StrictModel):
    type: Literal["text"]
    text: Text


ContentField = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True), Tag("<list>")],
    Discriminator(kind_of_text),
]


class ChatMessage(StrictModel):
    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: ContentField | None = None
    name: Text | None = None
    refusal: Unsupported = None
    tool_calls: Annotated[list[CallMade], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_call_id: Text | None = None
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
    metadata: Annotated[dict[Text, Text], BeforeValidator(few_pairs)] | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
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
        return calls | super().forms | ({} if form is None else {"response_format": form})

    @property
    def wanted_logprobs(self) -> int | None:
        """As the engine counts them."""
        return (self.top_logprobs or 0) if self.logprobs else None


class ChatFormat:
    """Reads and writes chat completions. ``prompt_field`` is what errors call the prompt."""

    prompt_field = "messages"
    id_prefix = "chatcmpl-"

    def parse(self, body: bytes) -> ChatRequest:
        """Raises InvalidRequestError."""
        return parse(ChatRequest, body)

    def prompts(self, request: ChatRequest) -> list[Prompt]:
        told = request.tools if request.tools and request.tool_choice != "none" else ()
        tools = tuple(tool.model_dump_json(exclude_none=True) for tool in told)
        return [Conversation(tuple(message.plain() for message in request.messages), tools)]

    def sampling(self, request: ChatRequest) -> SamplingParams:
        return request.sampling(request.max_completion_tokens or request.max_tokens, request.wanted_logprobs)

    def whole(self, request: ChatRequest, stamp: Stamp, answers: list[Answer], usage: Usage) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        return {
            "id": stamp.id,
            "object": "chat.completion",
            "created": stamp.created,
            "model": stamp.model,
            "choices": [_choice(answer, request.tool_use is not None) for answer in answers],
            "usage": usage_fields(usage),
            **_of_prompt(answers[0]),
        }

    def frames(self, request: ChatRequest, stamp: Stamp, include_usage: bool) -> ChatFrames:
        return ChatFrames(stamp, include_usage, request.tool_use is not None)


def _choice(answer: Answer, with_calls: bool) -> dict[str, Any]:
    text, calls, whole = read_calls(answer.text) if with_calls else (answer.text, [], False)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    if calls:
        message["content"] = text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    return {
        "index": answer.index,
        "message": message,
        "logprobs": None if answer.logprobs is None else chat_logprobs(answer.logprobs),
        "finish_reason": _reason(answer.finish_reason, whole),
    }


def _reason(reason: FinishReason, called: bool) -> str:
    return "tool_calls" if called and reason is FinishReason.STOP else reason.value


def _of_prompt(answer: Answer) -> dict[str, Any]:
    """vLLM's member; absent unless it was asked for, since OpenAI's clients do not know it."""
    return {} if answer.prompt_logprobs is None else {"prompt_logprobs": prompt_fields(answer.prompt_logprobs)}


class ChatFrames:
    """The SSE frames of one streamed chat completion. All but the text is serialised once per stream. ``with_calls``:
    calls of tools are looked for in the text."""

    def __init__(self, stamp: Stamp, include_usage: bool, with_calls: bool = False) -> None:
        self._readers: defaultdict[int, ToolCallParser] | None = defaultdict(ToolCallParser) if with_calls else None
        self._head = (
            f'data: {{"id":{quote(stamp.id)},"object":"chat.completion.chunk","created":{stamp.created},'
            f'"model":{quote(stamp.model)},"choices":['
        )
        no_usage = ',"usage":null' if include_usage else ""
        self._tail = f"]{no_usage}}}\n\n"
        self._text_head = self._head_of(0)
        self._text_tail = '},"logprobs":null,"finish_reason":null}' + self._tail

    def _head_of(self, index: int) -> str:
        return f'{self._head}{{"index":{index},"delta":{{"content":'

    def opening(self, index: int) -> str:
        """The first chunk: the role."""
        delta = '{"role":"assistant","content":"","refusal":null}'
        return f'{self._head}{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":null}}{self._tail}'

    def text(self, index: int, text: str, logprobs: tuple[TokenLogprobs, ...] | None) -> str:
        """A piece of choice ``index``."""
        if self._readers is not None:
            return self._pieces(index, self._readers[index].push(text), logprobs)
        return self._content(index, text, logprobs)

    def _pieces(self, index: int, pieces: list[Piece], logprobs: tuple[TokenLogprobs, ...] | None) -> str:
        """Text and calls; log probabilities come with the first."""
        if logprobs is not None and not pieces:
            return self._content(index, "", logprobs)
        frames = ""
        for piece in pieces:
            frames += (
                self._content(index, piece.text, logprobs)
                if isinstance(piece, Content)
                else self._call(index, piece, logprobs)
            )
            logprobs = None
        return frames

    def _call(self, index: int, piece: CallBegun | CallArguments, logprobs: tuple[TokenLogprobs, ...] | None) -> str:
        if isinstance(piece, CallBegun):
            function = {"name": piece.name, "arguments": ""}
            call: dict[str, Any] = {"index": piece.index, "id": piece.id, "type": "function", "function": function}
        else:
            call = {"index": piece.index, "function": {"arguments": piece.text}}
        told = None if logprobs is None else chat_logprobs(logprobs)
        delta, scores = (json.dumps(each, separators=(",", ":")) for each in ({"tool_calls": [call]}, told))
        return f'{self._head}{{"index":{index},"delta":{delta},"logprobs":{scores},"finish_reason":null}}{self._tail}'

    def _content(self, index: int, text: str, logprobs: tuple[TokenLogprobs, ...] | None) -> str:
        head = self._text_head if index == 0 else self._head_of(index)
        if logprobs is None:
            return f"{head}{quote(text)}{self._text_tail}"
        told = json.dumps(chat_logprobs(logprobs), separators=(",", ":"))
        return f'{head}{quote(text)}}},"logprobs":{told},"finish_reason":null}}{self._tail}'

    def end(self, index: int, reason: FinishReason) -> str:
        """The last chunk of a choice, after what of its text was held back."""
        rest, called = "", False
        if self._readers is not None:
            reader = self._readers.pop(index, None) or ToolCallParser()
            rest, called = self._pieces(index, reader.finish(), None), reader.called
        finish = f'"delta":{{}},"logprobs":null,"finish_reason":"{_reason(reason, called)}"'
        return f'{rest}{self._head}{{"index":{index},{finish}}}{self._tail}'

    def usage(self, fields: str) -> str:
        """The chunk of token counts; ``fields`` is JSON."""
        return f'{self._head}],"usage":{fields}}}\n\n'
