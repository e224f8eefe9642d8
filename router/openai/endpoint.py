"""What the wire formats share on the way out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from engine.api import FinishReason, Prompt, SamplingParams, TokenLogprobs, Usage
from router.openai.fields import GenerationFields

Request = TypeVar("Request", bound=GenerationFields)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every chunk and answer of a request carries. ``created`` in seconds since the epoch."""

    id: str
    created: int
    model: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole text of one choice; ``index`` is its number in the response, ``prompt`` that of its prompt."""

    index: int
    prompt: int
    text: str
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprobs, ...] | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None


class Frames(Protocol):
    """The SSE frames of one stream, as text ending in a blank line."""

    def opening(self, index: int) -> str: ...
    def text(self, index: int, text: str, logprobs: tuple[TokenLogprobs, ...] | None) -> str: ...
    def end(self, index: int, reason: FinishReason) -> str: ...
    def usage(self, fields: str) -> str: ...


class WireFormat(Protocol[Request]):
    """One endpoint's way of reading requests and writing answers."""

    prompt_field: str
    id_prefix: str

    def parse(self, body: bytes) -> Request: ...
    def prompts(self, request: Request) -> list[Prompt]: ...
    def sampling(self, request: Request) -> SamplingParams: ...
    def whole(self, request: Request, stamp: Stamp, answers: list[Answer], usage: Usage) -> dict[str, Any]: ...
    def frames(self, request: Request, stamp: Stamp, include_usage: bool) -> Frames: ...


def usage_fields(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def total(usages: list[Usage]) -> Usage:
    """The sum over several sequences."""
    return Usage(
        sum(u.prompt_tokens for u in usages),
        sum(u.completion_tokens for u in usages),
        sum(u.cached_tokens for u in usages),
    )
