"""The endpoint /v1/completions: its request model, and how a request becomes an ``InferenceRequest``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from engine.api import MAX_LOGPROBS, Prompt, SamplingParams
from router.errors import RefusalError
from router.inference_request import InferenceRequest
from router.openai.common_request import GenerationFields, TokenId
from router.openai.completions_writer import CompletionWriter
from router.openai.errors import error_body
from router.openai.validation import (
    MAX_LIST_ITEMS,
    Integer,
    Unsupported,
    ValidText,
    integral_items,
    parse,
    unsupported_except,
)

DEFAULT_MAX_TOKENS = 16  # OpenAI's default for this endpoint

TokenList = Annotated[list[TokenId], Field(min_length=1, fail_fast=True), BeforeValidator(integral_items)]


def _prompt_tag(prompt: object) -> str:
    """Returns the union tag of ``prompt``, by the type of its first item if it is a list."""
    if not isinstance(prompt, list):
        return "<text>"
    first = prompt[0] if prompt else None
    return "<tokens>" if isinstance(first, int | float) else "<token lists>" if isinstance(first, list) else "<texts>"


PromptField = Annotated[
    Annotated[ValidText, Tag("<text>")]
    | Annotated[list[ValidText], Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True), Tag("<texts>")]
    | Annotated[TokenList, Tag("<tokens>")]
    | Annotated[list[TokenList], Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True), Tag("<token lists>")],
    Discriminator(_prompt_tag),
]
"""One prompt or several, each as text or as token ids."""


class CompletionRequest(GenerationFields):
    """The JSON body of POST /v1/completions."""

    prompt: PromptField
    echo: bool | None = None
    suffix: Unsupported = None
    add_special_tokens: Annotated[Any, unsupported_except(True)] = None  # vLLM's
    max_tokens: Integer | None = Field(None, ge=0, le=2**31)  # 0: nothing is generated, the prompt is only scored
    logprobs: Integer | None = Field(None, ge=0, le=MAX_LOGPROBS)  # per token; 0: the chosen one's alone

    @model_validator(mode="after")
    def _echo_is_not_streamed(self) -> Self:
        if self.stream and self.echo:
            raise PydanticCustomError("misplaced", "is not streamed", {"name": "echo"})
        return self

    @property
    def prompt_logprob_count(self) -> int | None:
        """The value of ``SamplingParams.prompt_logprobs``: the number of alternatives per prompt token; None: the
        prompt is not scored.

        It is the larger of ``prompt_logprobs`` and, with ``echo``, of ``logprobs``. To echo a prompt of token ids, at
        least 0 is needed: the engine returns the text of the prompt's tokens with their log probabilities.
        """
        of_echo = self.logprobs if self.logprobs is not None else None if self.prompt_is_text else 0
        asked = (self.prompt_logprobs, of_echo if self.echo else None)
        return max((each for each in asked if each is not None), default=None)

    @property
    def prompt_is_text(self) -> bool:
        """Whether the prompt is a text or a list of texts. Otherwise it is token ids."""
        return isinstance(self.prompt, str) or isinstance(self.prompt[0], str)


class CompletionEndpoint:
    """The wire format of /v1/completions, as OpenAI defines it. Implements ``Endpoint``.

    Each of several prompts gets ``n`` choices of the response.
    """

    def parse(self, body: bytes) -> InferenceRequest:
        """Returns the request in ``body``, which is JSON.

        Raises InvalidRequestError for a wrong field, and RequestError for fields that exclude each other.
        """
        request = parse(CompletionRequest, body)
        prompts = _prompts(request)
        writer = partial(
            CompletionWriter,
            include_usage=request.include_usage,
            echo=bool(request.echo),
            with_logprobs=request.logprobs is not None,
            with_prompt_logprobs=request.prompt_logprobs is not None,
        )
        return request.inference(prompts, _sampling(request), "prompt", writer)

    def error(self, refusal: RefusalError) -> str:
        """Returns OpenAI's error object for ``refusal``, as JSON."""
        return error_body(refusal)


def _prompts(request: CompletionRequest) -> list[Prompt]:
    """Returns the prompts, each as text or as a tuple of token ids."""
    prompt = request.prompt
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [tuple(prompt)]
    return [each if isinstance(each, str) else tuple(each) for each in prompt]


def _sampling(request: CompletionRequest) -> SamplingParams:
    max_tokens = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    sampling = request.sampling(max_tokens, request.logprobs)
    return replace(sampling, prompt_logprobs=request.prompt_logprob_count)
