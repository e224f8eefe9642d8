"""The wire format of /v1/completions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from json.encoder import encode_basestring_ascii as quote
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from engine.api import MAX_LOGPROBS, Prompt, SamplingParams, Usage
from router.answer_events import AnswerEvent, Ended, Finished, Stamp, Text
from router.errors import RefusalError
from router.inference_request import InferenceRequest
from router.openai.common_request import GenerationFields, TokenId
from router.openai.common_response import ChunkTemplate, usage_fields
from router.openai.errors import error_body
from router.openai.logprobs import TextPlace, prompt_fields, said, text_logprobs
from router.openai.validation import MAX_LIST_ITEMS, Integer, Unsupported, ValidText, integral_items, parse
from router.whole_answer import Answer

DEFAULT_MAX_TOKENS = 16  # OpenAI's

TokenList = Annotated[list[TokenId], Field(min_length=1, fail_fast=True), BeforeValidator(integral_items)]


def _prompt_kind(prompt: object) -> str:
    if not isinstance(prompt, list):
        return "<text>"
    first = prompt[0] if prompt else None
    return "<tokens>" if isinstance(first, int | float) else "<token lists>" if isinstance(first, list) else "<texts>"


PromptField = Annotated[
    Annotated[ValidText, Tag("<text>")]
    | Annotated[list[ValidText], Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True), Tag("<texts>")]
    | Annotated[TokenList, Tag("<tokens>")]
    | Annotated[list[TokenList], Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True), Tag("<token lists>")],
    Discriminator(_prompt_kind),
]


class CompletionRequest(GenerationFields):
    """POST /v1/completions."""

    prompt: PromptField
    echo: bool | None = None
    suffix: Unsupported = None
    max_tokens: Integer | None = Field(None, ge=0, le=2**31)  # 0: the prompt alone, to be scored
    logprobs: Integer | None = Field(None, ge=0, le=MAX_LOGPROBS)  # here 0 asks for something: the chosen token's

    @model_validator(mode="after")
    def _streams_no_echo(self) -> Self:
        if self.stream and self.echo:
            raise PydanticCustomError("misplaced", "is not streamed", {"name": "echo"})
        return self

    @property
    def scored_prompt(self) -> int | None:
        """Log probabilities that are wanted of the prompt. To echo one that came as tokens takes their text."""
        of_echo = self.logprobs if self.logprobs is not None else None if self.says_prompt else 0
        asked = (self.prompt_logprobs, of_echo if self.echo else None)
        return max((each for each in asked if each is not None), default=None)

    @property
    def says_prompt(self) -> bool:
        """Whether the prompt came as text."""
        return isinstance(self.prompt, str) or isinstance(self.prompt[0], str)


class CompletionEndpoint:
    """POST /v1/completions as OpenAI defines it; several prompts become several choices."""

    def parse(self, body: bytes) -> InferenceRequest:
        """Raises InvalidRequestError."""
        request = parse(CompletionRequest, body)
        writer = partial(CompletionWriter, request)
        return request.inference(_prompts(request), _sampling(request), "prompt", writer)

    def error(self, refusal: RefusalError) -> str:
        return error_body(refusal)


def _prompts(request: CompletionRequest) -> list[Prompt]:
    prompt = request.prompt
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [tuple(prompt)]
    return [each if isinstance(each, str) else tuple(each) for each in prompt]


def _sampling(request: CompletionRequest) -> SamplingParams:
    max_tokens = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    sampling = request.sampling(max_tokens, request.logprobs)
    return replace(sampling, prompt_logprobs=request.scored_prompt)


class CompletionWriter:
    """Writes the answer to one request for text completions. All of a chunk but its text is serialised once."""

    def __init__(self, request: CompletionRequest, stamp: Stamp) -> None:
        self._request = request
        self._id = f"cmpl-{stamp.id}"
        self._stamp = stamp
        self._chunk = ChunkTemplate("text_completion", self._id, stamp, request.include_usage)
        self._text_tail = ',"logprobs":null,"finish_reason":null}' + self._chunk.tail
        self._places: defaultdict[int, TextPlace] = defaultdict(TextPlace)  # of each choice

    def chunks(self, events: Sequence[AnswerEvent]) -> list[str]:
        """A chunk for each piece of text and each end."""
        chunks: list[str] = []
        for event in events:
            match event:
                case Text():
                    chunks.append(self._text(event))
                case Ended(choice, reason):
                    finish = f'"text":"","logprobs":null,"finish_reason":"{reason.value}"'
                    chunks.append(f'{self._chunk.head}{{"index":{choice},{finish}}}{self._chunk.tail}')
                case Finished(usage):
                    chunks += self._chunk.last(usage)
        return chunks

    def whole(self, answers: Sequence[Answer], usage: Usage) -> str:
        """The body of an answer that is not streamed."""
        document = {
            "id": self._id,
            "object": "text_completion",
            "created": self._stamp.created,
            "model": self._stamp.model,
            "choices": [self._choice(answer) for answer in answers],
            "usage": usage_fields(usage),
        }
        return json.dumps(document)

    def _text(self, event: Text) -> str:
        opened = f'{self._chunk.head}{{"index":{event.choice},"text":{quote(event.text)}'
        if event.logprobs is None:
            return opened + self._text_tail
        logprobs = text_logprobs(event.logprobs, self._places[event.choice])
        scores = json.dumps(logprobs, separators=(",", ":"))
        return f'{opened},"logprobs":{scores},"finish_reason":null}}{self._chunk.tail}'

    def _choice(self, answer: Answer) -> dict[str, Any]:
        request = self._request
        echoed = answer.prompt_logprobs or () if request.echo else ()
        text = answer.text
        if request.echo:
            prompt = _prompts(request)[answer.prompt]
            text = (prompt if isinstance(prompt, str) else said(echoed)) + text
        logprobs = None
        if request.logprobs is not None:
            logprobs = text_logprobs((*echoed, *(answer.logprobs or ())), TextPlace())
        choice = {"index": answer.index, "text": text, "logprobs": logprobs, "finish_reason": answer.finish_reason}
        if request.prompt_logprobs is not None:
            choice["prompt_logprobs"] = prompt_fields(answer.prompt_logprobs or ())
        return choice
