"""Whole answers, in the terms of no format."""

from __future__ import annotations

from dataclasses import dataclass

from engine.api import FinishReason, TokenLogprobs


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call, or as much of it as was generated. ``arguments`` is JSON, or its beginning."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice. ``index`` is its number in the response, ``prompt`` that of its prompt.

    ``called``: the answer ends with a whole tool call. ``prompt_logprobs`` are the same for all choices of a prompt.
    ``reasoning`` is what the model thought before it answered; None where it did not say that it thinks.
    """

    index: int
    prompt: int
    text: str
    finish_reason: FinishReason
    called: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    reasoning: str | None = None
