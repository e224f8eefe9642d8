"""A request in the router's two stages: ``Call`` from the transport, ``InferenceRequest`` after the body is parsed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.api import Priority, Prompt, SamplingParams
from router.answer_events import AnswerWriter, Stamp
from router.documents import Document, RetrievalOptions, RetrievedContext
from router.moderation_scores import ModerationSettings
from router.ports.tracer import NoTrace, Trace
from router.prompt_report import PromptReport


@dataclass(frozen=True, slots=True)
class Call:
    """A request as the transport hands it to the pipeline, before its body is read.

    ``credentials`` is the value of the Authorization header, or the transport's equivalent; None: there is none.
    ``read`` receives and returns the whole body. The pipeline calls it once, after authentication, with the largest
    size that it accepts, in bytes. It raises PayloadTooLargeError for a larger body. ``endpoint`` is the path, such as
    /v1/completions. ``feature`` is the value of the header that names the request's feature, for accounting; None:
    there is none. ``cache_control`` is the value of the header Cache-Control; None: there is none.
    ``idempotency_key`` is the value of the header Idempotency-Key; None: there is none. ``trace`` is the trace of the
    request. ``ends_at`` is the instant of the event loop's clock at which the request is cancelled because it takes too
    long; None: it is not.
    """

    request_id: str
    credentials: str | None
    read: Callable[[int], Awaitable[bytes]]
    endpoint: str = ""
    feature: str | None = None
    cache_control: str | None = None
    idempotency_key: str | None = None
    trace: Trace = field(default_factory=NoTrace)
    ends_at: float | None = None

    @property
    def timed_out(self) -> bool:
        """Whether the request has taken longer than it may. A cancellation is for that reason then."""
        return self.ends_at is not None and asyncio.get_running_loop().time() >= self.ends_at


@dataclass(frozen=True, slots=True)
class CacheControls:
    """The options of a request for the answer cache.

    ``lookup``: a stored answer may be returned. ``semantic``: this may also be the answer to another question of the
    same meaning. ``store``: the answer may be stored, for at most ``ttl_s`` seconds. ``ttl_s`` None: the time in the
    settings. ``max_age_s`` is the greatest age, in seconds, of a stored answer that may be returned; None: any age.
    ``namespace`` separates stored answers within the tenant.
    """

    lookup: bool = True
    store: bool = True
    semantic: bool = True
    max_age_s: float | None = None
    ttl_s: float | None = None
    namespace: str = ""


NO_CONTROLS = CacheControls()


@dataclass(frozen=True, slots=True)
class TextParsing:
    """The parts that the router parses out of the generated text of an answer."""

    reasoning: bool = False  # reasoning between ``<think>`` and ``</think>`` at the beginning
    tool_calls: bool = False
    text_before_calls: bool = True  # whether tool calls may follow text; if not, an answer is calls alone or text alone
    json_text: bool = False  # whether the text of an answer that may be tool calls instead is JSON


NO_PARSING = TextParsing()

JSON_GRAMMARS = ("json_schema", "json_object")
"""The kinds of grammars whose texts are JSON."""


@dataclass(frozen=True, slots=True)
class PromptReference:
    """The stored prompt that a request names. ``version`` None: the active one. ``variables`` are JSON values."""

    id: str
    version: int | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A request for inference, independent of the wire format. Each of its prompts gets ``sampling.n`` answers and
    becomes one engine request."""

    model: str  # the name of a tier, "auto" or an alias, not yet checked
    prompts: Sequence[Prompt]
    sampling: SamplingParams
    prompt_field: str  # the name of the prompt's field in the wire format, for errors
    writer: Callable[[Stamp], AnswerWriter]  # makes the writer of the response
    stream: bool = False
    explicit: frozenset[str] = frozenset()  # sampling parameters that the client set, which override the profile's
    profile: str | None = None  # the name of a sampling profile (setting router.profiles)
    priority: Priority = Priority.STANDARD
    deadline_s: float | None = None  # seconds from arrival to the first token of each prompt's answers
    ttft_slo_s: float | None = None  # the objective of its class for the same; None: it has none
    refused_before: tuple[int, ...] = ()  # as in ``GenerationRequest``
    surplus: bool = False  # as in ``GenerationRequest``
    spill: Literal["none", "up", "down", "any"] | None = None  # where it may go if its tier has no room; None: as
    # configured
    parsing: TextParsing = NO_PARSING
    ignored: tuple[str, ...] = ()  # what the request sets without effect
    tools: tuple[str, ...] = ()  # the names of the functions that the model is offered
    user: str | None = None  # the client's own name for its user, for the ledger
    moderation: ModerationSettings | None = None  # scores of the request and its answers, sent with them
    max_cost: float | None = None  # the most that the request may cost, in the currency of the prices
    template: PromptReference | None = None  # the stored prompt that the request names
    template_version: str | None = None  # ``id@version`` of the stored prompt whose messages ``prompts`` begin with
    template_values: tuple[tuple[str, str], ...] = ()  # the client's texts in those messages, each after its field
    template_messages: int = 0  # the number of those messages
    truncation: Literal["auto", "disabled"] | None = None  # whether a conversation that is too long may be shortened
    include_assembly: bool = False  # whether the answer shows the prompt's messages as the model gets them
    report: PromptReport | None = None  # what the prompt was assembled from; None: there is nothing to report
    detach: bool = False  # whether the engine goes on when the client of a stream has left, so that it can resume
    on_failure: Literal["error", "partial"] | None = None  # what a whole answer becomes that fails; None: as configured
    cache: CacheControls = NO_CONTROLS
    documents: tuple[Document, ...] = ()  # that the client has sent along
    retrieval: RetrievalOptions | None = None  # None: no retrieval, unless there are documents
    context: RetrievedContext | None = None  # the passages in the conversation; None: there was no retrieval

    @property
    def writes_json(self) -> bool:
        """Whether the request's form makes the text of its answers JSON, or the rest of a JSON text that it begins."""
        grammar = self.sampling.grammar
        return self.parsing.json_text or (grammar is not None and grammar.kind in JSON_GRAMMARS)

    @property
    def retrieves(self) -> bool:
        """Whether passages are searched for the request."""
        return self.retrieval is not None or bool(self.documents)

    @property
    def context_text(self) -> str:
        """The message that holds the retrieved passages; '' if there is none."""
        return "" if self.context is None else self.context.text

    @property
    def choice_prompts(self) -> list[int]:
        """The index of the prompt of each choice, in the order of the choices."""
        return [prompt for prompt in range(len(self.prompts)) for _ in range(self.sampling.n)]
