"""The fields that the endpoints have in common."""

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
from router.config import MIN_TOP_P, ProfileConfig
from router.inference_request import NO_PARSING, InferenceRequest, TextParsing
from router.openai.response_format import (
    Choices,
    GuidedJson,
    Pattern,
    Source,
    StructuredOutputs,
    kind_of_schema,
    schema_grammar,
)
from router.openai.validation import (
    Integer,
    StrictModel,
    ValidText,
    integral_items,
    kind_of_text,
    not_yet,
)

PROFILED = tuple(ProfileConfig.model_fields)
"""Sampling parameters that a profile may set."""

TokenId = Annotated[int, Field(ge=0, le=2**31)]  # in lists, see integral_items
StopTokenLimit = Field(max_length=64, fail_fast=True)
TokenLimit = Field(min_length=1, max_length=65_536, fail_fast=True)
TokenName = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
"""A token id as a key of a JSON object."""
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Word = Annotated[ValidText, Field(min_length=1, max_length=256)]
StopField = Annotated[
    Annotated[ValidText, Tag("<text>")]
    | Annotated[list[ValidText], Field(max_length=4, fail_fast=True), Tag("<list>")],
    Discriminator(kind_of_text),
]


class StreamOptions(StrictModel):
    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, not_yet(False)] = None


class GenerationFields(StrictModel):
    """The fields that chat and completions have in common, OpenAI's by their names, extensions by vLLM's."""

    WITHOUT_EFFECT: ClassVar[Sequence[str]] = ("user",)
    """Fields that are accepted and change nothing."""

    model: ValidText
    stream: bool | None = None
    stream_options: StreamOptions | None = None
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
    guided_json: Annotated[GuidedJson, Discriminator(kind_of_schema)] | None = None
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
    profile: ValidText | None = None  # ours: a use case, whose settings apply where the request has none
    priority: Integer | None = Field(None, ge=-(2**31), lt=2**31)  # vLLM's: lower is earlier; its sign is the class
    deadline_s: float | None = Field(None, gt=0, le=86_400, allow_inf_nan=False)  # ours: for the first token
    n: Integer | None = Field(None, ge=1, le=MAX_CHOICES)
    best_of: Integer | None = Field(None, ge=1, le=MAX_CHOICES)
    use_beam_search: bool | None = None
    length_penalty: float | None = Field(None, ge=-10, le=10, allow_inf_nan=False)
    early_stopping: bool | Literal["never"] | None = None
    do_sample: bool | None = None  # transformers': whether beams are drawn
    user: ValidText | None = None

    def sampling(self, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
        """These fields as the engine takes them, and two that the endpoints spell differently. OpenAI's ``top_p: 0``
        means the most probable token alone."""
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
        """vLLM's spelling: a search is as wide as ``best_of``, or as many answers as are wanted."""
        if not self.use_beam_search:
            return None
        return BeamSearch(
            width=self.best_of or self.n or 1,
            length_penalty=1.0 if self.length_penalty is None else self.length_penalty,
            early_stopping=self.early_stopping or False,
            do_sample=bool(self.do_sample),
        )

    @cached_property
    def forms(self) -> dict[str, Grammar]:
        """The forms that the answer is to have, by the fields that ask for them."""
        asked = self._asked_forms().items()
        return {name: replace(grammar, param=name) for name, grammar in asked if grammar is not None}

    def _asked_forms(self) -> dict[str, Grammar | None]:
        return {
            "guided_json": None if self.guided_json is None else schema_grammar(self.guided_json),
            "guided_regex": None if self.guided_regex is None else Grammar.regex(self.guided_regex),
            "guided_choice": None if self.guided_choice is None else Grammar.choice(self.guided_choice),
            "guided_grammar": None if self.guided_grammar is None else Grammar.lark(self.guided_grammar),
            "structured_outputs": None if self.structured_outputs is None else self.structured_outputs.grammar,
        }

    @property
    def form(self) -> Grammar | None:
        """The form that the answer is to have; None: any text."""
        return next(iter(self.forms.values()), None)

    @property
    def grammar(self) -> Grammar | None:
        """What the whole answer follows; None: it is any text."""
        return self.form

    @property
    def ignored(self) -> tuple[str, ...]:
        """What the request sets and has no effect, for the client to know."""
        return tuple(name for name in self.WITHOUT_EFFECT if getattr(self, name) not in (None, False))

    @model_validator(mode="after")
    def _streams_by_its_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("misplaced", "needs 'stream' to be true", {"name": "stream_options"})
        return self

    @model_validator(mode="after")
    def _streams_no_prompt(self) -> Self:
        if self.stream and self.prompt_logprobs is not None:
            raise PydanticCustomError("misplaced", "is not streamed", {"name": "prompt_logprobs"})
        return self

    @model_validator(mode="after")
    def _searches_in_earnest(self) -> Self:
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
    def _streams_no_best(self) -> Self:
        if self.stream and not self.use_beam_search and (self.best_of or 0) > (self.n or 1):
            # Which answers are the best shows at the end.
            raise PydanticCustomError("misplaced", "is not streamed", {"name": "best_of"})
        return self

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if len(self.forms) > 1:
            *_, name = self.forms
            raise PydanticCustomError("misplaced", "cannot be combined with another form of the answer", {"name": name})
        return self

    def inference(
        self,
        prompts: Sequence[Prompt],
        sampling: SamplingParams,
        prompt_field: str,
        writer: Callable[[Stamp], AnswerWriter],
        parsing: TextParsing = NO_PARSING,
    ) -> InferenceRequest:
        """This request in the terms of no format."""
        return InferenceRequest(
            self.model,
            prompts,
            sampling,
            prompt_field,
            writer,
            stream=bool(self.stream),
            explicit=frozenset(name for name in PROFILED if getattr(self, name) is not None),
            profile=self.profile,
            priority=self.class_of_service,
            deadline_s=self.deadline_s,
            parsing=parsing,
            ignored=self.ignored,
        )

    @property
    def class_of_service(self) -> Priority:
        """Below 0 is interactive, 0 standard, above 0 batch."""
        priority = self.priority or 0
        return Priority((priority > 0) - (priority < 0))

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a chunk of token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)
