"""The wire format of /v1/chat/completions."""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii as quote
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from engine.api import (
    MOST_LOGPROBS,
    Conversation,
    FinishReason,
    Grammar,
    Message,
    Prompt,
    SamplingParams,
    TokenLogprobs,
    Usage,
)
from router.openai.fields import GenerationFields
from router.openai.formats import ResponseFormat, grammar_of_format
from router.openai.logprobs import chat_logprobs, prompt_fields
from router.openai.strict import MANY, StrictModel, Text, Unsupported, few_pairs, kind_of_text, not_yet, parse
from router.openai.wire import Answer, Stamp, usage_fields


class TextPart(StrictModel):
    type: Literal["text"]
    text: Text


Content = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=MANY, fail_fast=True), Tag("<list>")],
    Discriminator(kind_of_text),
]


class ChatMessage(StrictModel):
    role: Literal["developer", "system", "user", "assistant"]
    content: Content
    name: Text | None = None
    refusal: Unsupported = None
    tool_calls: Annotated[Any, not_yet([])] = None
    audio: Unsupported = None
    function_call: Unsupported = None
    annotations: Annotated[Any, not_yet([])] = None  # our own answers carry an empty list, and may be sent back

    def plain(self) -> Message:
        """The message as the chat template sees it; text parts are joined."""
        if isinstance(self.content, str):
            return Message(self.role, self.content)
        return Message(self.role, "".join(part.text for part in self.content))


class ChatRequest(GenerationFields):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MANY, fail_fast=True)]
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31)
    response_format: ResponseFormat | None = None
    service_tier: Literal["auto", "default"] | None = None
    metadata: Annotated[dict[Text, Text], BeforeValidator(few_pairs)] | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    store: Annotated[Any, not_yet(False)] = None
    modalities: Annotated[Any, not_yet(["text"])] = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    tools: Annotated[Any, not_yet([])] = None
    tool_choice: Unsupported = None
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

    @property
    def forms(self) -> dict[str, Grammar]:
        """OpenAI's own field beside those of vLLM."""
        form = grammar_of_format(self.response_format)
        return super().forms | ({} if form is None else {"response_format": form})

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
        return [Conversation(tuple(message.plain() for message in request.messages))]

    def sampling(self, request: ChatRequest) -> SamplingParams:
        return request.sampling(request.max_completion_tokens or request.max_tokens, request.wanted_logprobs)

    def whole(self, request: ChatRequest, stamp: Stamp, answers: list[Answer], usage: Usage) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        return {
            "id": stamp.id,
            "object": "chat.completion",
            "created": stamp.created,
            "model": stamp.model,
            "choices": [
                {
                    "index": index,
                    "message": {
                        "role": "assistant",
                        "content": answer.text,
                        "refusal": None,
                        "annotations": [],
                    },
                    "logprobs": None if answer.logprobs is None else chat_logprobs(answer.logprobs),
                    "finish_reason": answer.finish_reason,
                }
                for index, answer in enumerate(answers)
            ],
            "usage": usage_fields(usage),
            **_of_prompt(answers[0]),
        }

    def frames(self, stamp: Stamp, include_usage: bool) -> ChatFrames:
        return ChatFrames(stamp, include_usage)


def _of_prompt(answer: Answer) -> dict[str, Any]:
    """vLLM's member; absent unless it was asked for, since OpenAI's clients do not know it."""
    return {} if answer.prompt_logprobs is None else {"prompt_logprobs": prompt_fields(answer.prompt_logprobs)}


class ChatFrames:
    """The SSE frames of one streamed chat completion. All but the text is serialised once per stream."""

    def __init__(self, stamp: Stamp, include_usage: bool) -> None:
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
        head = self._text_head if index == 0 else self._head_of(index)
        if logprobs is None:
            return f"{head}{quote(text)}{self._text_tail}"
        told = json.dumps(chat_logprobs(logprobs), separators=(",", ":"))
        return f'{head}{quote(text)}}},"logprobs":{told},"finish_reason":null}}{self._tail}'

    def end(self, index: int, reason: FinishReason) -> str:
        """The last chunk of a choice."""
        finish = f'"delta":{{}},"logprobs":null,"finish_reason":"{reason.value}"'
        return f'{self._head}{{"index":{index},{finish}}}{self._tail}'

    def usage(self, fields: str) -> str:
        """The chunk of token counts; ``fields`` is JSON."""
        return f'{self._head}],"usage":{fields}}}\n\n'
