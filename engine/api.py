"""All that crosses the engine's boundary: requests in, deltas out, typed errors.

Nothing here imports torch, so that the floors above can speak of requests and deltas without loading a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from itertools import compress
from typing import Literal

from engine.errors import (
    ContextLengthError,
    EngineDeadError,
    EngineError,
    OverloadedError,
    RequestError,
    UnsatisfiableError,
)
from engine.forms import MOST_BEAM_STOPS, MOST_BEAMS, BeamSearch, Grammar

__all__ = [
    "BREAKS",
    "CALL_BEGIN",
    "CALL_END",
    "DEEPEST",
    "LONGEST_NGRAM",
    "MOST_BEAMS",
    "MOST_BEAM_STOPS",
    "MOST_CHOICES",
    "MOST_LOGPROBS",
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
]

MOST_LOGPROBS = 20  # as OpenAI allows
MOST_CHOICES = 128  # likewise
LONGEST_NGRAM = 32  # tokens: each place of a prompt is remembered by so many


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


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen, and when to stop. Field names are vLLM's where it has them, else transformers'. The
    order in which they take effect is told in engine/decode/rules.py and sampling.py.

    Raises RequestError, naming the field, for a value out of range.
    """

    n: int = 1  # choices: answers to one prompt, which is computed once
    best_of: int | None = None  # of so many, ``n`` with the highest mean log probability of a token; None: all of ``n``
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 or -1: off
    top_p: float = 1.0  # nucleus, Holtzman et al. 2020
    min_p: float = 0.0  # least probability, as a share of the likeliest token's (Nguyen et al. 2024); 0: off
    typical_p: float = 1.0  # mass of tokens whose surprise is nearest the expected (Meister et al. 2022); 1: off
    repetition_penalty: float = 1.0  # of tokens in prompt and answer (Keskar et al. 2019); 1: off
    presence_penalty: float = 0.0  # taken off the logits of tokens that the answer has (OpenAI)
    frequency_penalty: float = 0.0  # the same for each time that it has them (OpenAI)
    no_repeat_ngram_size: int = 0  # no n-gram of prompt and answer comes twice; 0: off
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # added to the logits of tokens
    bad_words: tuple[str, ...] = ()  # not said as a tokenizer writes them, after a space or without
    allowed_token_ids: tuple[int, ...] | None = None  # nothing else is chosen
    logprobs: int | None = None  # of the chosen token and of so many of the likeliest, 0 to 20
    prompt_logprobs: int | None = None  # the same of the prompt's tokens, which are all computed then; always raw
    logprobs_mode: Literal["raw", "processed"] = "raw"  # the model's own, or after rules, temperature and cuts
    grammar: Grammar | None = None
    beam: BeamSearch | None = None  # None: each answer is drawn by itself
    min_tokens: int = 0  # before that many no end-of-sequence and no stop token is chosen, and no stop string ends it
    seed: int | None = None  # None: the engine draws one per request
    max_tokens: int | None = None  # None: up to the end of the context
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        def refuse(param: str, rule: str) -> RequestError:
            return RequestError(f"{param} must be {rule}, got {getattr(self, param)!r}", param)

        if not 1 <= self.n <= MOST_CHOICES:
            raise refuse("n", f"between 1 and {MOST_CHOICES}")
        if self.best_of is not None and not self.n <= self.best_of <= MOST_CHOICES:
            raise refuse("best_of", f"between n and {MOST_CHOICES}")
        if not 0.0 <= self.temperature <= 100.0:  # also refuses NaN
            raise refuse("temperature", "between 0 and 100")
        if self.top_k < -1:
            raise refuse("top_k", "-1 or 0 (off) or positive")
        if not 0.0 < self.top_p <= 1.0:
            raise refuse("top_p", "in (0, 1]")
        self._check_rules(refuse)
        if self.beam is not None:
            self._check_beam(self.beam, refuse)
        if self.max_tokens is not None and self.max_tokens < 1:
            raise refuse("max_tokens", "at least 1")
        if not 0 <= self.min_tokens <= (self.max_tokens or self.min_tokens):
            raise refuse("min_tokens", "between 0 and max_tokens")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise refuse("seed", "a 64-bit signed integer")
        if any(not s for s in self.stop):
            raise refuse("stop", "made of strings that are not empty")

    @property
    def choices(self) -> int:
        """Answers that are generated."""
        return self.best_of or self.n

    @property
    def side_by_side(self) -> int:
        """Answers that are under way at once."""
        return self.choices if self.beam is None else self.beam.width

    @property
    def records_logprobs(self) -> bool:
        """Whether log probabilities are told, or needed to find the best."""
        return self.logprobs is not None or self.choices > self.n

    def _check_beam(self, beam: BeamSearch, refuse: Callable[[str, str], RequestError]) -> None:
        if self.best_of is not None:
            raise refuse("best_of", "None: a beam search has a width")
        if self.n > beam.width:
            raise refuse("n", f"at most the width of the search, {beam.width}")
        if self.logprobs_mode != "raw":
            raise refuse("logprobs_mode", "raw for a beam search")
        if beam.do_sample:
            if self.temperature == 0:
                raise refuse("temperature", "above 0 for a beam search that samples")
            return
        if self.temperature not in (0, 1):
            raise refuse("temperature", "0 or 1 for a beam search that does not sample")
        cuts = (self.top_k > 0, self.top_p < 1, self.min_p > 0, self.typical_p < 1)
        for param in compress(("top_k", "top_p", "min_p", "typical_p"), cuts):
            raise refuse(param, "off for a beam search that does not sample")

    def _check_rules(self, refuse: Callable[[str, str], RequestError]) -> None:
        if not 0.0 <= self.min_p <= 1.0:
            raise refuse("min_p", "between 0 and 1")
        if not 0.0 < self.typical_p <= 1.0:
            raise refuse("typical_p", "in (0, 1]")
        if not (self.repetition_penalty > 0 and math.isfinite(self.repetition_penalty)):
            raise refuse("repetition_penalty", "a positive number")
        for param in ("presence_penalty", "frequency_penalty"):
            if not math.isfinite(getattr(self, param)):
                raise refuse(param, "a finite number")
        if not 0 <= self.no_repeat_ngram_size <= LONGEST_NGRAM:
            raise refuse("no_repeat_ngram_size", f"between 0 (off) and {LONGEST_NGRAM}")
        if not all(math.isfinite(bias) for bias in self.logit_bias.values()):
            raise refuse("logit_bias", "made of finite numbers")
        if any(not word for word in self.bad_words):
            raise refuse("bad_words", "made of strings that are not empty")
        for param in ("logprobs", "prompt_logprobs"):
            value = getattr(self, param)
            if value is not None and not 0 <= value <= MOST_LOGPROBS:
                raise refuse(param, f"between 0 and {MOST_LOGPROBS}")
        if self.logprobs_mode not in ("raw", "processed"):
            raise refuse("logprobs_mode", "raw or processed")
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise refuse("allowed_token_ids", "None or not empty")


CALL_BEGIN, CALL_END = "<tool_call>", "</tool_call>"
"""What a model writes around a call of a tool: Hermes' way, which Qwen and others are trained to."""

DEEPEST = 64
"""Lists and objects within each other in what is told of tools: templates and writers of JSON go down by recursion."""


def is_plain_json(value: object, depth: int = DEEPEST) -> bool:
    """Whether JSON is nested no deeper than that, and all its text is Unicode."""
    if isinstance(value, str):
        return not any(0xD800 <= ord(character) < 0xE000 for character in value)
    if isinstance(value, dict):
        return depth > 0 and all(is_plain_json(name) and is_plain_json(each, depth - 1) for name, each in value.items())
    if isinstance(value, list):
        return depth > 0 and all(is_plain_json(each, depth - 1) for each in value)
    return True


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made; ``arguments`` is JSON."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, as the chat template sees it. The result of a call has the role ``tool``."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt that the model's own chat template turns into tokens (with the assistant's turn opened). ``tools`` are
    descriptions of functions, as the OpenAI API has them, each as JSON."""

    messages: tuple[Message, ...]
    tools: tuple[str, ...] = ()


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
            raise RequestError("Nobody knows how many blocks beams need: none can be reserved.", "reserve")
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
    first."""

    chosen: Logprob
    top: tuple[Logprob, ...]
    rank: int = 1


@dataclass(frozen=True, slots=True)
class Delta:
    """What one engine step added to one request.

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
        return self.usage is not None or self.finish_reason in BREAKS


BREAKS = frozenset({FinishReason.ABORT, FinishReason.DEADLINE, FinishReason.REFUSED, FinishReason.ERROR})
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
