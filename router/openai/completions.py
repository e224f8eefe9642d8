"""The wire format of /v1/completions."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from json.encoder import encode_basestring_ascii as quote
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from engine.api import MAX_LOGPROBS, FinishReason, Prompt, SamplingParams, TokenLogprobs, Usage
from router.openai.endpoint import Answer, Stamp, usage_fields
from router.openai.fields import GenerationFields
from router.openai.logprobs import TextPlace, prompt_fields, said, text_logprobs
from router.openai.validation import MAX_LIST_ITEMS, Text, Unsupported, parse

DEFAULT_MAX_TOKENS = 16  # OpenAI's

Token = Annotated[int, Field(ge=0, le=2**31)]
TokenList = Annotated[list[Token], Field(min_length=1, fail_fast=True)]


def _prompt_kind(prompt: object) -> str:
    if not isinstance(prompt, list):
        return "<text>"
    first = prompt[0] if prompt else None
    return "<tokens>" if isinstance(first, int) else "<token lists>" if isinstance(first, list) else "<texts>"


PromptField = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[list[Text], Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True), Tag("<texts>")]
    | Annotated[TokenList, Tag("<tokens>")]
    | Annotated[list[TokenList], Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True), Tag("<token lists>")],
    Discriminator(_prompt_kind),
]


class CompletionRequest(GenerationFields):
    """POST /v1/completions."""

    prompt: PromptField
    echo: bool | None = None
    suffix: Unsupported = None
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)  # here 0 asks for something: the chosen token's

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


class CompletionFormat:
    """Reads and writes text completions; several prompts become several choices."""

    prompt_field = "prompt"
    id_prefix = "cmpl-"

    def parse(self, body: bytes) -> CompletionRequest:
        """Raises InvalidRequestError."""
        return parse(CompletionRequest, body)

    def prompts(self, request: CompletionRequest) -> list[Prompt]:
        prompt = request.prompt
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt[0], int):
            return [tuple(prompt)]
        return [each if isinstance(each, str) else tuple(each) for each in prompt]

    def sampling(self, request: CompletionRequest) -> SamplingParams:
        sampling = request.sampling(request.max_tokens or DEFAULT_MAX_TOKENS, request.logprobs)
        return replace(sampling, prompt_logprobs=request.scored_prompt)

    def whole(self, request: CompletionRequest, stamp: Stamp, answers: list[Answer], usage: Usage) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        return {
            "id": stamp.id,
            "object": "text_completion",
            "created": stamp.created,
            "model": stamp.model,
            "choices": [self._choice(request, answer) for answer in answers],
            "usage": usage_fields(usage),
        }

    def _choice(self, request: CompletionRequest, answer: Answer) -> dict[str, Any]:
        echoed = answer.prompt_logprobs or () if request.echo else ()
        text = answer.text
        if request.echo:
            prompt = self.prompts(request)[answer.prompt]
            text = (prompt if isinstance(prompt, str) else said(echoed)) + text
        logprobs = None if answer.logprobs is None else text_logprobs((*echoed, *answer.logprobs), TextPlace())
        choice = {"index": answer.index, "text": text, "logprobs": logprobs, "finish_reason": answer.finish_reason}
        if request.prompt_logprobs is not None:
            choice["prompt_logprobs"] = prompt_fields(answer.prompt_logprobs or ())
        return choice

    def frames(self, request: CompletionRequest, stamp: Stamp, include_usage: bool) -> CompletionFrames:
        return CompletionFrames(stamp, include_usage)


class CompletionFrames:
    """The SSE frames of one streamed text completion."""

    def __init__(self, stamp: Stamp, include_usage: bool) -> None:
        self._head = (
            f'data: {{"id":{quote(stamp.id)},"object":"text_completion","created":{stamp.created},'
            f'"model":{quote(stamp.model)},"choices":['
        )
        no_usage = ',"usage":null' if include_usage else ""
        self._tail = f"]{no_usage}}}\n\n"
        self._text_tail = ',"logprobs":null,"finish_reason":null}' + self._tail
        self._places: defaultdict[int, TextPlace] = defaultdict(TextPlace)  # of each choice

    def opening(self, index: int) -> str:
        """Text completions open with their first text."""
        return ""

    def text(self, index: int, text: str, logprobs: tuple[TokenLogprobs, ...] | None) -> str:
        """A piece of choice ``index``."""
        opened = f'{self._head}{{"index":{index},"text":{quote(text)}'
        if logprobs is None:
            return opened + self._text_tail
        told = text_logprobs(logprobs, self._places[index])
        return f'{opened},"logprobs":{json.dumps(told, separators=(",", ":"))},"finish_reason":null}}{self._tail}'

    def end(self, index: int, reason: FinishReason) -> str:
        """The last chunk of a choice."""
        finish = f'"text":"","logprobs":null,"finish_reason":"{reason.value}"'
        return f'{self._head}{{"index":{index},{finish}}}{self._tail}'

    def usage(self, fields: str) -> str:
        """The chunk of token counts; ``fields`` is JSON."""
        return f'{self._head}],"usage":{fields}}}\n\n'
