"""What generation yields: the answers of one request as typed events, in the terms of no format.

Events come in batches; what arrived together is sent together. Their order::

    Routed (Opened Reasoning* (Text | ToolCallStart | ToolCallArguments)* Ended)* per choice, interleaved  Finished

``choice`` numbers the answers of a request from 0, over all of its prompts. Events are named tuples: one is made per
token, and a frozen dataclass takes twice as long to make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from engine.api import FinishReason, TokenLogprobs, Usage
from router.whole_answer import Answer


@dataclass(frozen=True, slots=True)
class Stamp:
    """What identifies an answer. ``created`` in seconds since the epoch; ``model`` is the tier that answers."""

    id: str
    created: int
    model: str


class AnswerWriter(Protocol):
    """Writes the answer of one request in its format. It may keep state from one batch of events to the next."""

    def chunks(self, events: Sequence[AnswerEvent]) -> list[str]:
        """The bodies of a stream's next messages, for those of ``events`` that the format shows."""
        ...

    def whole(self, answers: Sequence[Answer], usage: Usage) -> str:
        """The body of an answer that is not streamed; ``answers`` in the order of their index."""
        ...


class Routed(NamedTuple):
    """The request was accepted; no answer has begun. Always the first event, in a batch of its own."""

    tier: str
    reason: str  # why this tier, in ASCII
    stream: bool  # whether the client wants events as they come
    writer: Callable[[Stamp], AnswerWriter]
    ignored: tuple[str, ...] = ()  # request fields that have no effect


class Opened(NamedTuple):
    """The first event of a choice, which answers prompt number ``prompt``."""

    choice: int
    prompt: int = 0


class PromptScored(NamedTuple):
    """Log probabilities of the tokens of prompt number ``prompt``. The first token has rank 0 and no probability."""

    prompt: int
    logprobs: tuple[TokenLogprobs, ...]


class Text(NamedTuple):
    """A piece of a choice's text, which may be empty. ``logprobs`` are those of the tokens behind it, if asked for."""

    choice: int
    text: str
    logprobs: tuple[TokenLogprobs, ...] | None = None


class Reasoning(NamedTuple):
    """A piece of what the model thought before it answered. It is no part of the choice's text."""

    choice: int
    text: str
    logprobs: tuple[TokenLogprobs, ...] | None = None


class ToolCallStart(NamedTuple):
    """Tool call number ``call`` of a choice begins."""

    choice: int
    call: int
    id: str
    name: str
    logprobs: tuple[TokenLogprobs, ...] | None = None


class ToolCallArguments(NamedTuple):
    """A piece of a tool call's arguments. All pieces so far are the beginning of a JSON object."""

    choice: int
    call: int
    text: str
    logprobs: tuple[TokenLogprobs, ...] | None = None


class Ended(NamedTuple):
    """The last event of a choice. ``called``: the answer ends with a whole tool call."""

    choice: int
    reason: FinishReason
    called: bool = False


class Notice(NamedTuple):
    """Something that the client should know and that is no part of an answer, such as a change of the replica.

    No package yields one yet.
    """

    name: str
    text: str


class Finished(NamedTuple):
    """The last event of a request. ``usage`` is the sum over its prompts."""

    usage: Usage


AnswerEvent = (
    Routed | Opened | PromptScored | Text | Reasoning | ToolCallStart | ToolCallArguments | Ended | Notice | Finished
)
