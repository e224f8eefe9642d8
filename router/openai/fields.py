"""What the wire formats share: strict models, fields that are refused until they are built, and named errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from engine.api import MOST_CHOICES, Priority, SamplingParams
from router.openai.errors import InvalidRequestError

Model = TypeVar("Model", bound=BaseModel)

MANY = 2048
"""Items of one list: messages, parts, prompts. More is a mistake; to look at each would hold everybody up."""


def _encodable(text: str) -> str:
    if "\x00" in text:
        raise PydanticCustomError("null_character", "must not contain the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("surrogate", "must not contain half of a surrogate pair") from None
    return text


def not_yet(*neutral: object) -> BeforeValidator:
    """For a field of the API that is not built yet: null and ``neutral`` pass, all else is refused, never ignored."""

    def check(value: object) -> object:
        # By type as well: True == 1 and 0 == False, but they do not ask for the same.
        if value is None or any(type(value) is type(each) and value == each for each in neutral):
            return value
        if not neutral:
            raise PydanticCustomError("unsupported", "is not supported yet")
        accepted = " or ".join(json.dumps(each) for each in neutral)
        raise PydanticCustomError("unsupported", "only {accepted} is supported so far", {"accepted": accepted})

    return BeforeValidator(check)


def few_pairs(value: object) -> object:
    """For OpenAI's metadata, which has at most 16 pairs."""
    if isinstance(value, dict) and len(value) > 16:
        raise PydanticCustomError("too_long", "must have at most 16 pairs")
    return value


def kind_of_text(value: object) -> str:
    """The tag of a union of text and a list. Tags look like no field, so that errors can leave them out."""
    return "<list>" if isinstance(value, list) else "<text>"


Text = Annotated[str, AfterValidator(_encodable)]
Unsupported = Annotated[Any, not_yet()]
TokenId = Annotated[int, Field(ge=0, le=2**31)]
TokenName = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
"""A token id as a key of a JSON object."""
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Word = Annotated[Text, Field(min_length=1, max_length=256)]
StopField = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[list[Text], Field(max_length=4, fail_fast=True), Tag("<list>")],
    Discriminator(kind_of_text),
]


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few(cls, members: Any) -> Any:
        # Collecting an error for each of a million unknown names would hold everybody up; the first will do.
        if isinstance(members, dict) and len(members) > len(cls.model_fields):
            unknown = next(name for name in members if name not in cls.model_fields)
            raise PydanticCustomError("unknown_member", "has an unknown member", {"name": unknown})
        return members


class StreamOptions(StrictModel):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class GenerationFields(StrictModel):
    """The fields that chat and completions have in common, OpenAI's by their names, extensions by vLLM's."""

    model: Text
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=-1, le=2**31)
    min_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    typical_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    repetition_penalty: float | None = Field(None, gt=0, le=100, allow_inf_nan=False)
    no_repeat_ngram_size: int | None = Field(None, ge=0, le=1024)
    logit_bias: Annotated[dict[TokenName, Bias], Field(max_length=1024, fail_fast=True)] | None = None
    bad_words: Annotated[list[Word], Field(max_length=256, fail_fast=True)] | None = None
    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=65_536, fail_fast=True)] | None = None
    min_tokens: int | None = Field(None, ge=0, le=2**31)
    logprobs_mode: Literal["raw", "processed"] | None = None
    max_tokens: int | None = Field(None, ge=1, le=2**31)
    stop: StopField | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64, fail_fast=True)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    ignore_eos: bool | None = None
    profile: Text | None = None  # ours: a use case, whose settings apply where the request has none
    priority: int | None = Field(None, ge=-(2**31), lt=2**31)  # vLLM's: lower is earlier; here its sign is the class
    deadline_s: float | None = Field(None, gt=0, le=86_400, allow_inf_nan=False)  # ours: for the first token
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    user: Text | None = None

    def sampling(self, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
        """These fields as the engine takes them, and two that the endpoints spell differently. OpenAI's ``top_p: 0``
        means the most probable token alone."""
        stop = () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        return SamplingParams(
            n=self.n or 1,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else max(self.top_p, 1e-9),
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
            logprobs_mode=self.logprobs_mode or "raw",
            seed=self.seed,
            max_tokens=max_tokens,
            stop=stop,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
        )

    def within(self, profile: Mapping[str, float | int]) -> Self:
        """The same request with the settings of ``profile`` where it has none of its own."""
        return self.model_copy(update={name: value for name, value in profile.items() if getattr(self, name) is None})

    @property
    def class_of_service(self) -> Priority:
        """Below 0 is interactive, 0 standard, above 0 batch."""
        priority = self.priority or 0
        return Priority((priority > 0) - (priority < 0))

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a chunk of token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


def parse(model: type[Model], body: bytes) -> Model:
    """``body`` as a ``model``. Raises InvalidRequestError that names the field which is wrong."""
    document = _load(body)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise _named(error.errors(include_url=False)[0], document) from None
    except RecursionError:
        raise InvalidRequestError("The request is nested too deeply.", "invalid_json") from None


def _load(body: bytes) -> dict[str, Any]:
    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        document = json.loads(body, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:  # also what is not UTF-8, and integers of thousands of digits
        reason = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise InvalidRequestError(f"The body of the request is not valid JSON: {reason}.", "invalid_json") from None
    if not isinstance(document, dict):
        raise InvalidRequestError("The body of the request must be a JSON object.", "invalid_json")
    return document


def _named(error: ErrorDetails, document: dict[str, Any]) -> InvalidRequestError:
    location = error["loc"]
    if error["type"] in ("unknown_member", "misplaced"):
        location = (*location, error["ctx"]["name"])
    param = _field_name(location, document)
    if not param:  # the name itself is no text
        return InvalidRequestError("The names of parameters must be valid text.", "invalid_json")
    if error["type"] in ("extra_forbidden", "unknown_member"):
        return InvalidRequestError(f"Unrecognized request argument supplied: {param}.", "unknown_parameter", param)
    if error["type"] == "missing":
        return InvalidRequestError(f"Missing required parameter: '{param}'.", "missing_required_parameter", param)
    code = "unsupported_parameter" if error["type"] == "unsupported" else "invalid_value"
    message = error["msg"][0].lower() + error["msg"][1:]
    return InvalidRequestError(f"Invalid '{param}': {message}.", code, param)


def _field_name(location: tuple[int | str, ...], document: Any) -> str:
    """The path of a field, like ``messages[0].content``; pydantic's names of union members are left out."""
    name = ""
    for i, part in enumerate(location):
        if isinstance(part, int):
            name += f"[{part}]"
            document = document[part] if isinstance(document, list) and part < len(document) else None
        elif isinstance(document, dict) and (
            part in document or (i == len(location) - 1 and part[:1] not in ("<", "["))
        ):
            name += f".{part}" if name else part
            document = document.get(part)
    # A client chose this name when the field is unknown: keep what is echoed short and printable.
    return name.encode("ascii", "backslashreplace").decode()[:128]
