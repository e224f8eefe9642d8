"""Complete answers, for responses that are not streamed. They are independent of the wire format."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from engine.api import FinishReason, TokenLogprobs
from router.documents import Citation
from router.errors import RefusalError
from router.moderation_scores import ModerationResults


class HaltReason(StrEnum):
    """The reason for which the router ended a choice before the engine did."""

    CONTENT_FILTER = "content_filter"  # a check of the tenant's policy halted it


EndReason = FinishReason | HaltReason
"""Why a choice ended: a reason of the engine or of the router."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of an answer. ``arguments`` is JSON, cut off if the answer reached its length limit within it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice of a response. ``index`` is its index in the response, ``prompt`` the index of its prompt.

    ``text`` holds neither reasoning nor tool calls. ``called``: the answer ends with a complete tool call.
    ``prompt_logprobs`` are the same for all choices of a prompt. ``reasoning`` is None if the model wrote none, or if
    it was not parsed. ``moderation`` is that of the request and of all answers, the same for all; None: the request did
    not ask for it.
    ``fault``: the failure of the service that has cut the answer off.
    """

    index: int
    prompt: int
    text: str
    finish_reason: EndReason
    called: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    reasoning: str | None = None
    citations: tuple[Citation, ...] = ()
    moderation: tuple[ModerationResults, ModerationResults] | None = None
    fault: RefusalError | None = None
