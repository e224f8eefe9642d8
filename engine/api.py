"""The engine's public types: requests in, deltas out, typed errors.

Nothing here imports torch, so that the floors above can speak of requests and deltas without loading a model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from engine.errors import (
    ContextLengthError,
    EngineDeadError,
    EngineError,
    OverloadedError,
    RequestError,
    UnsatisfiableError,
)
from engine.sampling_params import (
    MAX_BEAM_STOP_TOKENS,
    MAX_BEAM_WIDTH,
    MAX_CHOICES,
    MAX_LOGPROBS,
    MAX_NGRAM_SIZE,
    BeamSearch,
    SamplingParams,
)
from engine.schema_support import unenforced_keywords, without_unenforced
from engine.structured_output import JSON_STYLE, MAX_GRAMMAR_CHARS, Grammar

__all__ = [
    "FAILURE_REASONS",
    "JSON_STYLE",
    "MAX_BEAM_STOP_TOKENS",
    "MAX_BEAM_WIDTH",
    "MAX_CHOICES",
    "MAX_GRAMMAR_CHARS",
    "MAX_JSON_DEPTH",
    "MAX_LOGPROBS",
    "MAX_NGRAM_SIZE",
    "TOOL_CALL_END",
    "TOOL_CALL_START",
    "BeamSearch",
    "ContextLengthError",
    "Conversation",
    "Delta",
    "EngineDeadError",
    "EngineError",
    "EngineStats",
    "FinishReason",
    "GenerationRequest",
    "Grammar",
    "Logprob",
    "Message",
    "ModelInfo",
    "OverloadedError",
    "Priority",
    "Prompt",
    "RequestError",
    "SamplingParams",
    "TokenLogprobs",
    "ToolCall",
    "UnsatisfiableError",
    "Usage",
    "is_plain_json",
    "unenforced_keywords",
    "without_unenforced",
]


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"  # end-of-sequence token, stop token or stop string
    LENGTH = "length"  # max_tokens or the end of the context
    ABORT = "abort"  # the caller gave it up
    DEADLINE = "deadline"  # its deadline passed before its first token; there is no text
    REFUSED = "refused"  # what it asks of its answer cannot be had; Delta.error says why
    ERROR = "error"  # something raised inside this one sequence; Delta.error says what


class Priority(IntEnum):
    """The class of a request. A higher class starts first; a waiting request rises by one class every
    ``EngineConfig.ageing_s``. The numbers are the sign of vLLM's ``priority``, where lower is earlier."""

    INTERACTIVE = -1  # somebody is watching
    STANDARD = 0
    BATCH = 1  # fills what is left


TOOL_CALL_START, TOOL_CALL_END = "<tool_call>", "</tool_call>"
"""What a model writes around a tool call: Hermes' format, which Qwen and others are trained on."""

MAX_JSON_DEPTH = 64
"""Most lists and objects within each other in a tool's description: chat templates and JSON writers recurse into
them."""


def is_plain_json(value: object, depth: int = MAX_JSON_DEPTH) -> bool:
    """Whether JSON is nested no deeper than that, and all its text is Unicode."""
    if isinstance(value, str):
        return _is_unicode(value)
    if isinstance(value, dict):
        return depth > 0 and all(is_plain_json(name) and is_plain_json(each, depth - 1) for name, each in value.items())
    if isinstance(value, list):
        return depth > 0 and all(is_plain_json(each, depth - 1) for each in value)
    return True


def _is_unicode(text: str) -> bool:
    """Whether it has no half of a surrogate pair. One encoding: a loop over the characters takes 30 times as long."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made; ``arguments`` is JSON."""

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, as the chat template sees it. The result of a call has the role ``tool``, and names
    the call by ``tool_call_id``. ``name`` tells speakers of one role apart. ``reasoning_content`` is what the assistant
    thought before it answered. A template gets what is not None, and may have no use for it."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    reasoning_content: str | None = None
    tool_call_id: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """All that it says."""
        own = (self.role, self.content, self.name, self.reasoning_content, self.tool_call_id)
        calls = (text for call in self.tool_calls for text in (call.name, call.arguments, call.id))
        return tuple(text for text in (*own, *calls) if text)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt that the model's own chat template turns into tokens. ``tools`` are descriptions of functions, as the
    OpenAI API has them, each as JSON. ``template_kwargs`` are further variables of the template, each a name and its
    value as JSON.

    ``add_generation_prompt`` opens the assistant's turn after the last message. ``continue_final_message`` leaves the
    last message open instead, and the answer continues it; it excludes the former. Both are transformers' names.

    Raises RequestError, naming the field, for a last message that cannot be continued.
    """

    messages: tuple[Message, ...]
    tools: tuple[str, ...] = ()
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    template_kwargs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.continue_final_message:
            return
        if self.add_generation_prompt:
            words = "continue_final_message and add_generation_prompt exclude each other."
            raise RequestError(words, "continue_final_message")
        last = self.messages[-1] if self.messages else None
        if last is None or last.role == "tool" or last.tool_calls:
            raise RequestError("Only a last message of text can be continued.", "continue_final_message")

    @property
    def characters(self) -> int:
        """Length of all that the client has said."""
        variables = sum(len(name) + len(value) for name, value in self.template_kwargs)
        said = sum(len(text) for message in self.messages for text in message.texts)
        return said + sum(map(len, self.tools)) + variables


Prompt = str | tuple[int, ...] | Conversation
"""Plain text, token ids, or a conversation."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One sequence to generate.

    ``cache_salt`` separates prefix caches: requests share cached KV blocks only under the same salt (the tenant's).

    ``resume`` holds the tokens of the answer that another engine has sent already. This one goes on after them, as the
    other would have: the same text from there on if ``sampling.seed`` is set, nothing sent twice. They count as
    generated, against ``max_tokens`` too.

    ``tenant`` is who pays: tenants share the engine by their weights. ``deadline_s`` bounds the wait for the first
    token, in seconds from arrival: a request that waits for longer ends with FinishReason.DEADLINE; one that has begun
    to answer is never ended by it. ``reserve`` sets KV blocks for the whole of ``max_tokens`` aside at the start: it
    starts later and is never preempted.

    Raises RequestError, naming the field, for a value out of range.
    """

    request_id: str
    prompt: Prompt
    sampling: SamplingParams = field(default_factory=SamplingParams)
    cache_salt: str = ""
    resume: tuple[int, ...] = ()
    tenant: str = ""
    priority: Priority = Priority.STANDARD
    deadline_s: float | None = None
    reserve: bool = False

    def __post_init__(self) -> None:
        if self.priority not in tuple(Priority):
            raise RequestError(f"priority must be -1, 0 or 1, got {self.priority!r}", "priority")
        if self.deadline_s is not None and not (self.deadline_s > 0 and math.isfinite(self.deadline_s)):
            raise RequestError(f"deadline_s must be positive, got {self.deadline_s!r}", "deadline_s")
        if self.reserve and self.sampling.beam is not None:
            raise RequestError("Blocks cannot be reserved for a beam search.", "reserve")
        if self.resume and (self.sampling.choices > 1 or self.sampling.beam is not None):
            raise RequestError("Only a request of one choice, not searched for, can be resumed.", "resume")


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request so far. ``cached_tokens`` of the prompt came from the prefix cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token, what it is as text (incomplete characters as U+FFFD) and in bytes, and the natural logarithm of its
    probability."""

    token_id: int
    text: str
    bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The token that was chosen, its rank among all (1: the likeliest), and the likeliest in its place, likeliest
    first. ``added`` is what it adds to the text, None for its own bytes: a special token has a name and adds nothing,
    and the first word of a text may leave its space out."""

    chosen: Logprob
    top: tuple[Logprob, ...]
    rank: int = 1
    added: bytes | None = None

    @property
    def text_bytes(self) -> bytes:
        """What it adds to the text. All of them joined are the text."""
        return self.chosen.bytes if self.added is None else self.added


@dataclass(slots=True)
class Delta:
    """What one engine step added to one request.

    It is not changed once it was made. It is not frozen because one is made for every token on both sides of a lane,
    and a frozen dataclass takes four times as long to make.

    ``text`` may be empty while a character or a possible stop string is incomplete; the concatenation of all texts is
    the whole answer. ``finish_reason`` is set on the last delta of each choice, ``usage`` on the last of the request;
    an error, an abort or a deadline ends all choices at once. ``error`` is set only with ERROR and REFUSED.
    ``logprobs``, if they were asked for, has one for each token but one that ends a choice without adding text.
    ``prompt_logprobs`` come with the first delta of a request: one for each token of its prompt; that of the first,
    which follows nothing, is no number. Of a beam search each answer comes whole, at the end, with its ``score``.
    """

    request_id: str
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    error: str | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None
    choice: int = 0
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    score: float | None = None

    @property
    def last(self) -> bool:
        """Whether the request has ended."""
        return self.usage is not None or self.finish_reason in FAILURE_REASONS


FAILURE_REASONS = frozenset({FinishReason.ABORT, FinishReason.DEADLINE, FinishReason.REFUSED, FinishReason.ERROR})
"""Ends of a request as a whole."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters and gauges of one engine, all read at the same instant."""

    running: int  # sequences that hold KV blocks
    waiting: int  # sequences that do not yet
    blocks_total: int
    blocks_used: int  # referenced by a live sequence
    blocks_cached: int  # kept for prefix reuse, evictable
    steps: int
    prompt_tokens: int  # prefilled, cached ones left out
    cached_tokens: int  # prompt tokens taken from the prefix cache
    generated_tokens: int
    finished: int
    aborted: int
    failed: int
    expired: int = 0  # ended by their deadline
    preemptions: int = 0
    guessed_tokens: int = 0  # computed as guesses
    right_guesses: int = 0  # of these, what was drawn
    wait_s: float = 0.0  # estimated wait of one more request, in seconds


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the floors above need to know of a loaded model."""

    name: str
    context_length: int  # tokens, prompt and answer together
    vocab_size: int
