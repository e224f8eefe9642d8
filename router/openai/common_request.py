"""The request fields that /v1/chat/completions and /v1/completions have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from engine.api import (
    MAX_BEAM_WIDTH,
    MAX_CHOICES,
    MAX_LOGPROBS,
    MAX_NGRAM_SIZE,
    BeamSearch,
    Grammar,
    Priority,
    Prompt,
    SamplingParams,
)
from router.answer_events import AnswerWriter, Stamp
from router.config.answer_cache import MAX_CACHE_TTL_S
from router.config.profiles import MIN_TOP_P, ProfileConfig
from router.inference_request import NO_CONTROLS, NO_PARSING, CacheControls, InferenceRequest, TextParsing
from router.openai.moderation_field import InlineModeration
from router.openai.structured_output import (
    Choices,
    GuidedJson,
    Pattern,
    Source,
    StructuredOutputs,
    schema_grammar,
    schema_tag,
)
from router.openai.validation import (
    Integer,
    StrictModel,
    ValidText,
    integral_items,
    text_or_list_tag,
    unsupported_except,
)

PROFILED = tuple(ProfileConfig.model_fields)
"""The sampling parameters that a sampling profile may set."""

TokenId = Annotated[int, Field(ge=0, le=2**31)]  # lists of it also need integral_items, which accepts 1.0 for 1
StopTokenLimit = Field(max_length=64, fail_fast=True)
TokenLimit = Field(min_length=1, max_length=65_536, fail_fast=True)
TokenName = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
"""A token id as the key of a JSON object, which is a string."""
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Word = Annotated[ValidText, Field(min_length=1, max_length=256)]
MAX_STOPS = 32
"""OpenAI allows 4 stop strings; coding assistants and evaluation harnesses send up to 30 to other services."""
StopText = Annotated[ValidText, Field(max_length=1024)]  # the end of the text is compared with all of it at each token
StopField = Annotated[
    Annotated[StopText, Tag("<text>")]
    | Annotated[list[StopText], Field(max_length=MAX_STOPS, fail_fast=True), Tag("<list>")],
    Discriminator(text_or_list_tag),
]


class StreamOptions(StrictModel):
    """OpenAI's options of a streamed response, and vLLM's ``continuous_usage_stats``. That has no effect: the tokens
    of the prompt are known only at the end."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: Annotated[Any, unsupported_except(False)] = None


class CacheField(StrictModel):
    """Manta's options of the answer cache, for one request."""

    mode: Literal["default", "no-cache", "no-store", "off"] | None = None
    semantic: bool | None = None
    max_age_s: float | None = Field(None, ge=0, le=MAX_CACHE_TTL_S, allow_inf_nan=False)
    ttl_s: float | None = Field(None, gt=0, le=MAX_CACHE_TTL_S, allow_inf_nan=False)
    namespace: Annotated[ValidText, Field(max_length=128)] | None = None

    @property
    def controls(self) -> CacheControls:
        """The options independent of the wire format."""
        return CacheControls(
            lookup=self.mode not in ("no-cache", "off"),
            store=self.mode not in ("no-store", "off"),
            semantic=self.semantic is not False,
            max_age_s=self.max_age_s,
            ttl_s=self.ttl_s,
            namespace=self.namespace or "",
        )


class GenerationFields(StrictModel):
    """The request fields that chat and text completions share.

    OpenAI's fields have OpenAI's names. Extensions have vLLM's names, or transformers' where vLLM has none.
    """

    WITHOUT_EFFECT: ClassVar[Sequence[str]] = ()
    """Fields that are accepted and have no effect. The header x-manta-ignored names those that a request sets."""

    model: ValidText
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    detach: bool | None = None  # Manta's: the answer goes on when the client has left, who can resume the stream
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    top_k: Integer | None = Field(None, ge=-1, le=2**31)
    min_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    typical_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    repetition_penalty: float | None = Field(None, gt=0, le=100, allow_inf_nan=False)
    no_repeat_ngram_size: Integer | None = Field(None, ge=0, le=MAX_NGRAM_SIZE)
    logit_bias: Annotated[dict[TokenName, Bias], Field(max_length=1024, fail_fast=True)] | None = None
    bad_words: Annotated[list[Word], Field(max_length=256, fail_fast=True)] | None = None
    allowed_token_ids: Annotated[list[TokenId], TokenLimit, BeforeValidator(integral_items)] | None = None
    min_tokens: Integer | None = Field(None, ge=0, le=2**31)
    guided_json: Annotated[GuidedJson, Discriminator(schema_tag)] | None = None
    guided_regex: Pattern | None = None
    guided_choice: Choices | None = None
    guided_grammar: Source | None = None
    structured_outputs: StructuredOutputs | None = None
    prompt_logprobs: Integer | None = Field(None, ge=0, le=MAX_LOGPROBS)
    logprobs_mode: Literal["raw", "processed"] | None = None
    max_tokens: Integer | None = Field(None, ge=1, le=2**31)
    stop: StopField | None = None
    stop_token_ids: Annotated[list[TokenId], StopTokenLimit, BeforeValidator(integral_items)] | None = None
    seed: Integer | None = Field(None, ge=-(2**63), lt=2**63)
    ignore_eos: bool | None = None
    profile: ValidText | None = None  # Manta's: a sampling profile, for the parameters that the request does not set
    priority: Integer | None = Field(None, ge=-(2**31), lt=2**31)  # vLLM's: lower is earlier; only the sign counts
    deadline_s: float | None = Field(None, gt=0, le=86_400, allow_inf_nan=False)  # Manta's: seconds to the first token
    spill: Literal["none", "up", "down", "any"] | None = None  # Manta's: other tiers if the model's has no room
    n: Integer | None = Field(None, ge=1, le=MAX_CHOICES)
    best_of: Integer | None = Field(None, ge=1, le=MAX_CHOICES)
    use_beam_search: bool | None = None
    length_penalty: float | None = Field(None, ge=-10, le=10, allow_inf_nan=False)
    early_stopping: bool | Literal["never"] | None = None
    do_sample: bool | None = None  # transformers': beam search draws tokens instead of taking the likeliest
    user: ValidText | None = None
    moderation: InlineModeration | None = None  # OpenAI's: scores of the request and its answers
    max_cost: float | None = Field(None, gt=0, allow_inf_nan=False)  # Manta's: the most that the request may cost
    cache: CacheField | None = None
    on_failure: Literal["error", "partial"] | None = None  # Manta's: what an answer becomes that cannot be finished
    # vLLM's, which its clients write out: their usual values ask for what is done anyway, and others are refused.
    skip_special_tokens: Annotated[Any, unsupported_except(True)] = None
    spaces_between_special_tokens: Annotated[Any, unsupported_except(True)] = None
    include_stop_str_in_output: Annotated[Any, unsupported_except(False)] = None
    return_token_ids: Annotated[Any, unsupported_except(False)] = None
    return_tokens_as_token_ids: Annotated[Any, unsupported_except(False)] = None

    def sampling(self, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
        """Returns the engine's sampling parameters.

        ``max_tokens`` and ``logprobs`` are arguments because the endpoints have different fields for them. OpenAI's
        ``top_p: 0`` means the most probable token alone; it is replaced by MIN_TOP_P, which has this effect. Raises
        RequestError for parameters that exclude each other.
        """
        stop = () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        return SamplingParams(
            n=self.n or 1,
            best_of=None if self.use_beam_search else self.best_of,
            beam=self._beam(),
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else max(self.top_p, MIN_TOP_P),
            min_p=self.min_p or 0.0,
            typical_p=1.0 if self.typical_p is None else self.typical_p,
            repetition_penalty=1.0 if self.repetition_penalty is None else self.repetition_penalty,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            no_repeat_ngram_size=self.no_repeat_ngram_size or 0,
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
            bad_words=tuple(self.bad_words or ()),
            allowed_token_ids=None if self.allowed_token_ids is None else tuple(self.allowed_token_ids),
            min_tokens=self.min_tokens or 0,
            logprobs=logprobs,
            prompt_logprobs=self.prompt_logprobs,
            grammar=self.grammar,
            logprobs_mode=self.logprobs_mode or "raw",
            seed=self.seed,
            max_tokens=max_tokens,
            stop=stop,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
        )

    def _beam(self) -> BeamSearch | None:
        """Returns the beam search that the request asks for; None without ``use_beam_search``.

        As in vLLM, the beam width is ``best_of``, or ``n`` where that is not set.
        """
        if not self.use_beam_search:
            return None
        return BeamSearch(
            width=self.best_of or self.n or 1,
            length_penalty=1.0 if self.length_penalty is None else self.length_penalty,
            early_stopping=self.early_stopping or False,
            do_sample=bool(self.do_sample),
        )

    @cached_property
    def text_grammars(self) -> dict[str, Grammar]:
        """The grammars for the text of the answer (structured output), by the request field that asks for each.

        More than one is refused by validation.
        """
        asked = self._requested_grammars().items()
        return {name: replace(grammar, param=name) for name, grammar in asked if grammar is not None}

    def _requested_grammars(self) -> dict[str, Grammar | None]:
        """Returns the grammar of each structured output field; None for a field that is not set."""
        return {
            "guided_json": None if self.guided_json is None else schema_grammar(self.guided_json),
            "guided_regex": None if self.guided_regex is None else Grammar.regex(self.guided_regex),
            "guided_choice": None if self.guided_choice is None else Grammar.choice(self.guided_choice),
            "guided_grammar": None if self.guided_grammar is None else Grammar.lark(self.guided_grammar),
            "structured_outputs": None if self.structured_outputs is None else self.structured_outputs.grammar,
        }

    @property
    def text_grammar(self) -> Grammar | None:
        """The grammar for the text of the answer. None: any text."""
        return next(iter(self.text_grammars.values()), None)

    @property
    def grammar(self) -> Grammar | None:
        """The grammar for the whole answer. None: any text. ``ChatRequest`` adds tool calls to it."""
        return self.text_grammar

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of the fields that the request sets but that have no effect, for the header x-manta-ignored."""
        fields = [name for name in self.WITHOUT_EFFECT if getattr(self, name) not in (None, False)]
        if self.stream_options is not None and self.stream_options.continuous_usage_stats:
            fields.append("stream_options.continuous_usage_stats")
        return tuple(fields)

    @model_validator(mode="after")
    def _stream_options_need_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("misplaced", "needs 'stream' to be true", {"name": "stream_options"})
        return self

    @model_validator(mode="after")
    def _detach_needs_stream(self) -> Self:
        if self.detach and not self.stream:
            raise PydanticCustomError("misplaced", "needs 'stream' to be true", {"name": "detach"})
        return self

    @model_validator(mode="after")
    def _prompt_logprobs_are_not_streamed(self) -> Self:
        if self.stream and self.prompt_logprobs is not None:
            raise PydanticCustomError("misplaced", "is not streamed", {"name": "prompt_logprobs"})
        return self

    @model_validator(mode="after")
    def _beam_fields_need_beam_search(self) -> Self:
        if self.use_beam_search:
            name = "n" if self.best_of is None else "best_of"
            if (self.best_of or self.n or 1) > MAX_BEAM_WIDTH:
                raise PydanticCustomError("misplaced", f"is at most {MAX_BEAM_WIDTH} beams", {"name": name})
            return self
        for name in ("length_penalty", "early_stopping", "do_sample"):
            if getattr(self, name) is not None:
                raise PydanticCustomError("misplaced", "needs 'use_beam_search' to be true", {"name": name})
        return self

    @model_validator(mode="after")
    def _best_of_is_not_streamed(self) -> Self:
        if self.stream and not self.use_beam_search and (self.best_of or 0) > (self.n or 1):
            # The best answers are known only once all have ended.
            raise PydanticCustomError("misplaced", "is not streamed", {"name": "best_of"})
        return self

    @model_validator(mode="after")
    def _at_most_one_text_grammar(self) -> Self:
        if len(self.text_grammars) > 1:
            *_, name = self.text_grammars
            raise PydanticCustomError("misplaced", "cannot be combined with another form of the answer", {"name": name})
        return self

    def inference(
        self,
        prompts: Sequence[Prompt],
        sampling: SamplingParams,
        prompt_field: str,
        writer: Callable[[Stamp], AnswerWriter],
        parsing: TextParsing = NO_PARSING,
        **others: Any,
    ) -> InferenceRequest:
        """Returns the request independent of the wire format.

        ``prompt_field`` is the field that holds the prompt, for errors. ``writer`` makes the writer of the response.
        ``others`` are further fields of InferenceRequest.
        """
        return InferenceRequest(
            self.model,
            prompts,
            sampling,
            prompt_field,
            writer,
            stream=bool(self.stream),
            explicit=frozenset(name for name in PROFILED if getattr(self, name) is not None),
            profile=self.profile,
            priority=self.priority_class,
            deadline_s=self.deadline_s,
            spill=self.spill,
            parsing=parsing,
            ignored=self.ignored,
            tools=self.tool_names,
            user=self.end_user,
            moderation=None if self.moderation is None else self.moderation.settings,
            max_cost=self.max_cost,
            detach=bool(self.detach),
            on_failure=self.on_failure,
            cache=NO_CONTROLS if self.cache is None else self.cache.controls,
            **others,
        )

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names of the functions that the model is offered."""
        return ()

    @property
    def end_user(self) -> str | None:
        """The client's own name for its user, for the ledger and the reviewers; None: it gives none."""
        return self.user

    @property
    def priority_class(self) -> Priority:
        """The scheduling class of the request, by the sign of ``priority``.

        Negative is interactive, positive is batch. 0 and no ``priority`` are standard.
        """
        priority = self.priority or 0
        return Priority((priority > 0) - (priority < 0))

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a chunk that holds the token counts (``stream_options.include_usage``)."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)
