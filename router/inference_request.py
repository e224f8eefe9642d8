"""A request on its way through the router: as a transport hands it over, and as a format has read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from engine.api import Priority, Prompt, SamplingParams
from router.answer_events import AnswerWriter, Stamp


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose format is not read yet.

    ``credentials`` is what the client proves its identity with: the value of an Authorization header or its like.
    ``read`` receives the whole body and is called once, after authentication. It takes the largest size in bytes and
    raises PayloadTooLargeError for a body above it.
    """

    request_id: str
    credentials: str | None
    read: Callable[[int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class TextParsing:
    """What is looked for in the text of an answer."""

    reasoning: bool = False  # ``<think>`` around what comes before the answer
    tool_calls: bool = False
    text_before_calls: bool = True  # whether calls may follow text; if not, an answer is calls alone or text alone


NO_PARSING = TextParsing()


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A request for answers, in the terms of no format. Each prompt gets ``sampling.n`` answers."""

    model: str  # a tier, "auto" or an alias
    prompts: Sequence[Prompt]
    sampling: SamplingParams
    prompt_field: str  # what the format calls the prompt; errors name it
    writer: Callable[[Stamp], AnswerWriter]  # makes what writes the answer in the request's format
    stream: bool = False
    explicit: frozenset[str] = frozenset()  # sampling parameters that the client set; a profile leaves them
    profile: str | None = None  # name of a set of sampling parameters in the setting router.profiles
    priority: Priority = Priority.STANDARD
    deadline_s: float | None = None  # for the first token
    parsing: TextParsing = NO_PARSING
    ignored: tuple[str, ...] = ()  # fields that were accepted and have no effect
