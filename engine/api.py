"""The engine's public types: requests, deltas, errors, statistics.

Imports no torch, so that router and cluster can use these types without loading a model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from engine.conversation import (
    MAX_JSON_DEPTH,
    TOOL_CALL_END,
    TOOL_CALL_START,
    Conversation,
    Message,
    Prompt,
    ToolCall,
    is_plain_json,
)
from engine.engine_load import LATENCY_BOUNDS_S, ClassLoad, DueWork, EngineLoad, TtftObjective
from engine.errors import (
    ContextLengthError,
    EngineDeadError,
    EngineError,
    ModelVersionError,
    OverloadedError,
    RequestError,
    UnsatisfiableError,
)
from engine.priority import Priority, rank_of
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
from engine.seeds import choice_seed
from engine.structured_output import JSON_STYLE, MAX_GRAMMAR_CHARS, Grammar

__all__ = [
    "FAILURE_REASONS",
    "JSON_STYLE",
    "LATENCY_BOUNDS_S",
    "MAX_BEAM_STOP_TOKENS",
    "MAX_BEAM_WIDTH",
    "MAX_CHOICES",
    "MAX_GRAMMAR_CHARS",
    "MAX_JSON_DEPTH",
    "MAX_LOGPROBS",
    "MAX_NGRAM_SIZE",
    "MAX_PREEMPTIONS",
    "MIN_DEADLINE_S",
    "TOOL_CALL_END",
    "TOOL_CALL_START",
    "BeamSearch",
    "ClassLoad",
    "ContextLengthError",
    "Conversation",
    "Delta",
    "DueWork",
    "EngineDeadError",
    "EngineError",
    "EngineLoad",
    "EngineStats",
    "FinishReason",
    "GenerationRequest",
    "Grammar",
    "Logprob",
    "Message",
    "ModelInfo",
    "ModelVersionError",
    "OverloadedError",
    "Priority",
    "Prompt",
    "RequestError",
    "SamplingParams",
    "StepFacts",
    "TokenLogprobs",
    "ToolCall",
    "TtftObjective",
    "UnsatisfiableError",
    "Usage",
    "choice_seed",
    "is_plain_json",
    "rank_of",
    "unenforced_keywords",
    "without_unenforced",
]


class FinishReason(StrEnum):
    """The reason for which a choice of a request ended."""

    STOP = "stop"  # end-of-sequence token, stop token or stop string
    LENGTH = "length"  # max_tokens or the end of the context
    ABORT = "abort"  # aborted by the caller, or the engine was closed
    DEADLINE = "deadline"  # its deadline passed before its first token; there is no text
    REFUSED = "refused"  # no answer satisfies its rules or grammar; Delta.error says why
    ERROR = "error"  # an exception inside the request; Delta.error names it


MIN_DEADLINE_S = 0.001
"""The least seconds to a deadline that ``GenerationRequest.after`` leaves."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A request to the engine (vLLM's ``EngineCoreRequest``).

    ``cache_salt`` separates prefix caches: requests share cached KV blocks only under the same salt.

    ``resume`` holds the tokens of this answer that another engine has generated and sent already. Generation continues
    after them, and they are not sent again; if they are a whole answer, its end alone is sent. They count against
    ``max_tokens`` and as generated tokens. With ``sampling.seed`` set, the answer continues as the other engine would
    have continued it.

    ``tenant`` is the unit of fair scheduling: tenants share the engine by their weights. ``deadline_s`` is the longest
    wait for the first token, in seconds from arrival; a request that waits longer ends with FinishReason.DEADLINE, and
    one that has its first token is never ended by it. ``reserve`` allocates KV blocks for all of ``max_tokens`` at
    admission: the request may be admitted later, and is never preempted. ``model_version`` is the version of the model
    that has generated ``resume``; replicas with another one refuse the request. "": any may continue it.
    ``trace_context`` is the W3C traceparent of the caller's span, and ``trace_state`` the tracestate that goes with it,
    which the engine only keeps. ``ttft_slo_s`` is the objective for the first token, in seconds from arrival: requests
    are served in the order in which their objectives are due, and one that has missed it after those that can still
    meet theirs. It ends no request. ``refused_before`` counts, by class in the order of ``Priority``, the requests that
    the router has refused for want of room since it last sent one: the engine counts them among its arrivals, for
    autoscaling. ``attempt`` counts the attempts at the request before this one. ``surplus``: the tenant asks for
    several times its share of the tier while others ask for less than theirs. The request comes after those of all
    classes that are not surplus.

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
    model_version: str = ""
    trace_context: str = ""
    trace_state: str = ""
    ttft_slo_s: float | None = None
    refused_before: tuple[int, ...] = ()
    attempt: int = 0
    surplus: bool = False

    @property
    def continues(self) -> bool:
        """Whether another replica had the request before, so that it is no new arrival."""
        return self.attempt > 0 or bool(self.resume)

    def after(self, seconds: float) -> GenerationRequest:
        """Returns the request as it arrives after it has waited ``seconds`` elsewhere: that much of the time to its
        deadline is over. What is late keeps MIN_DEADLINE_S, so that an engine which could begin at once does."""
        if self.deadline_s is None or seconds <= 0:
            return self
        return replace(self, deadline_s=max(MIN_DEADLINE_S, self.deadline_s - seconds))

    def __post_init__(self) -> None:
        if self.priority not in tuple(Priority):
            raise RequestError(f"priority must be -1, 0 or 1, got {self.priority!r}", "priority")
        if self.deadline_s is not None and not (self.deadline_s > 0 and math.isfinite(self.deadline_s)):
            raise RequestError(f"deadline_s must be positive, got {self.deadline_s!r}", "deadline_s")
        if self.ttft_slo_s is not None and not (self.ttft_slo_s > 0 and math.isfinite(self.ttft_slo_s)):
            raise RequestError(f"ttft_slo_s must be positive, got {self.ttft_slo_s!r}", "ttft_slo_s")
        if self.reserve and self.sampling.beam is not None:
            raise RequestError("Blocks cannot be reserved for a beam search.", "reserve")
        if self.resume and (self.sampling.choices > 1 or self.sampling.beam is not None):
            raise RequestError("Only a request of one choice, not searched for, can be resumed.", "resume")


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a whole request so far. The prompt counts once. ``completion_tokens`` adds up all choices.
    ``cached_tokens`` counts the prompt tokens found in the prefix cache, and is part of ``prompt_tokens``."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token with its text (U+FFFD for incomplete characters), its bytes, and the natural logarithm of its
    probability."""

    token_id: int
    text: str
    bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The log probabilities at one position: of the ``chosen`` token, whose ``rank`` is 1 if it is the most probable
    (0: the first token of a prompt, which has no context), and of the ``top`` tokens, most probable first. ``added``
    are the bytes that the chosen token adds to the text; None means its own bytes. They differ for a special token,
    which adds nothing, and where the first word of a text loses its space."""

    chosen: Logprob
    top: tuple[Logprob, ...]
    rank: int = 1
    added: bytes | None = None

    @property
    def text_bytes(self) -> bytes:
        """The bytes that the chosen token adds to the text. Those of all tokens, concatenated, are the text."""
        return self.chosen.bytes if self.added is None else self.added


@dataclass(slots=True)
class Delta:
    """The addition of one engine step to one choice of a request (vLLM's ``RequestOutput`` in delta mode).

    ``text`` may be empty while a character or a possible stop string is incomplete; the concatenation of all texts of a
    choice is its whole answer. ``finish_reason`` is set on the last delta of each choice, ``usage`` on the last delta
    of the request. An error, an abort or a deadline ends all choices at once. ``error`` is set only with ERROR and
    REFUSED. ``logprobs``, if requested, has one entry per token, except for a token that ends a choice without adding
    text. ``prompt_logprobs`` come with the first delta of a request, one per prompt token; the first is NaN, since
    nothing precedes it. A beam search sends each answer as one delta at the end, with its ``score``. ``waited_s``
    are the seconds that the request waited for its first step, and ``preempted_s`` those from its arrival to each of
    the preemptions of its choices (the first MAX_PREEMPTIONS; None: there was none), on the last delta of one that has
    finished.

    Treat it as immutable. It is not frozen because a delta is made for every token in the replica and again in the
    router, and creating a frozen dataclass takes four times as long.
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
    waited_s: float | None = field(default=None, compare=False)  # measured, and so never the same
    preempted_s: tuple[float, ...] | None = field(default=None, compare=False)

    @property
    def last(self) -> bool:
        """Whether this is the last delta of its request."""
        return self.usage is not None or self.finish_reason in FAILURE_REASONS


MAX_PREEMPTIONS = 16
"""The most preemptions of a request whose times its last delta tells."""

FAILURE_REASONS = frozenset({FinishReason.ABORT, FinishReason.DEADLINE, FinishReason.REFUSED, FinishReason.ERROR})
"""Finish reasons that end all choices of a request at once."""


class StepFacts(NamedTuple):
    """One engine step with a forward pass: its number, its sequences, the prompt tokens that it computed, and its
    duration in seconds, from the schedule to the deltas."""

    number: int = 0
    sequences: int = 0
    prompt_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since the start and current gauges of one engine, read at the same instant (vLLM's
    ``SchedulerStats``)."""

    running: int  # sequences that hold KV blocks
    waiting: int  # sequences in the waiting queue
    blocks_total: int
    blocks_used: int  # KV blocks that a running sequence holds
    blocks_cached: int  # in the prefix cache and held by no sequence: may be evicted
    steps: int
    prompt_tokens: int  # prompt tokens that were computed, not taken from the prefix cache
    cached_tokens: int  # prompt tokens taken from the prefix cache
    generated_tokens: int  # of all choices
    finished: int  # requests whose answers are complete
    aborted: int  # requests that the caller aborted
    failed: int  # requests that ended with ERROR or REFUSED
    expired: int = 0  # requests ended by their deadline
    preemptions: int = 0  # preemptions of sequences
    guessed_tokens: int = 0  # draft tokens that were verified
    right_guesses: int = 0  # draft tokens that were accepted
    wait_s: float = 0.0  # estimated wait of one more sequence, in seconds
    decoding: int = 0  # of ``running``: sequences that are not in prefill
    # Prompt tokens to be computed, without those in the prefix cache, by class in the order of ``Priority``:
    queued_short: tuple[int, ...] = (0,) * 3  # of prompts that one chunk completes
    queued_long: tuple[int, ...] = (0,) * 3  # of longer ones
    long_prompts: int = 0  # of these


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The properties of a loaded model that router and cluster need."""

    name: str
    context_length: int  # tokens, prompt and answer together
    vocab_size: int
    version: str = ""  # of the model's files and the engine's settings: with another, answers may differ
