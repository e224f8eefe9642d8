"""Answer events: what generation yields for one request, independent of the wire format.

Events come in batches. A batch is what arrived together, and is written to the client together. The order of events::

    Routed (Opened Reasoning* (Text | ToolCallStart | ToolCallArguments)* Ended)* per choice, interleaved  Finished

A PromptScored, if there is one, comes right before an Opened of its prompt. ``choice`` numbers the answers of a request
from 0, over all of its prompts. Events are named tuples because one is made per token, and a frozen dataclass takes
twice as long to make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from engine.api import FinishReason, TokenLogprobs, Usage
from router.ports.limit_store import LimitDecision
from router.whole_answer import Answer


@dataclass(frozen=True, slots=True)
class Stamp:
    """The members that identify a response.

    ``id`` is unique. ``created`` is in seconds since the epoch. ``model`` is the name of the tier that answers.
    """

    id: str
    created: int
    model: str


class AnswerWriter(Protocol):
    """The writer of one response in its wire format. It may keep state from one batch of events to the next.

    A request that streams gets ``chunks`` only, any other ``whole`` only.
    """

    def chunks(self, events: Sequence[AnswerEvent]) -> list[str]:
        """Writes ``events`` and returns the bodies of the stream's next messages, in order. May update the writer's
        state. Events that the format does not show add no message.

        The transport frames them, for example as SSE events.
        """
        ...

    def whole(self, answers: Sequence[Answer], usage: Usage) -> str:
        """Returns the body of a response that is not streamed. ``answers`` are in the order of their index; ``usage``
        is that of all answers together."""
        ...


class Routed(NamedTuple):
    """The first event of a request, in a batch of its own.

    The request is accepted and ``tier`` is chosen; no choice has begun.
    """

    tier: str
    reason: str  # why the tier was chosen, in ASCII, for a response header
    stream: bool  # whether the response is streamed
    writer: Callable[[Stamp], AnswerWriter]  # makes the writer of the response
    ignored: tuple[str, ...] = ()  # what the request sets without effect
    limits: LimitDecision | None = None  # the state of the request's limits; None: it has none


class Opened(NamedTuple):
    """The first event of a choice. The choice answers the prompt with the index ``prompt``."""

    choice: int
    prompt: int = 0


class PromptScored(NamedTuple):
    """The log probabilities of the prompt with the index ``prompt``: one entry per prompt token, in order.

    The first token has no context, so its rank is 0 and its log probability is NaN.
    """

    prompt: int
    logprobs: tuple[TokenLogprobs, ...]


class Text(NamedTuple):
    """A piece of a choice's text, which may be empty.

    ``logprobs`` are those of its tokens; None if the request did not ask for them.
    """

    choice: int
    text: str
    logprobs: tuple[TokenLogprobs, ...] | None = None


class Reasoning(NamedTuple):
    """A piece of the model's reasoning, which precedes the choice's text and is not part of it."""

    choice: int
    text: str
    logprobs: tuple[TokenLogprobs, ...] | None = None


class ToolCallStart(NamedTuple):
    """The beginning of a tool call. ``call`` numbers the tool calls of a choice from 0."""

    choice: int
    call: int
    id: str
    name: str
    logprobs: tuple[TokenLogprobs, ...] | None = None


class ToolCallArguments(NamedTuple):
    """A piece of a tool call's arguments. The pieces of a call, joined, are a JSON object; cut off if the answer is."""

    choice: int
    call: int
    text: str
    logprobs: tuple[TokenLogprobs, ...] | None = None


class Ended(NamedTuple):
    """The last event of a choice. ``called``: the choice ends with a complete tool call."""

    choice: int
    reason: FinishReason
    called: bool = False


class Notice(NamedTuple):
    """Something that the client should know but that is not part of an answer, such as a change of the replica.

    No package yields one yet. Formats without a place for notices leave them out.
    """

    name: str
    text: str


class Finished(NamedTuple):
    """The last event of a request. ``usage`` has the token counts of all its prompts and answers together."""

    usage: Usage


AnswerEvent = (
    Routed | Opened | PromptScored | Text | Reasoning | ToolCallStart | ToolCallArguments | Ended | Notice | Finished
)
