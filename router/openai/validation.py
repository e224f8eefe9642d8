"""Strict models, fields that are refused because they are not implemented yet, and errors that name the field."""

from __future__ import annotations

import json
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from router.errors import InvalidRequestError

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")

MAX_LIST_ITEMS = 2048
"""Items of one list: messages, parts, prompts. A longer list is a mistake, and would delay other requests."""


def _encodable(text: str) -> str:
    if "\x00" in text:
        raise PydanticCustomError("null_character", "must not contain the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("surrogate", "must not contain half of a surrogate pair") from None
    return text


def not_yet(*neutral: object) -> BeforeValidator:
    """For a field that is not implemented yet: null and ``neutral`` pass, all else is refused, never ignored."""

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


def short_json(value: T, limit: int) -> T:
    """``value`` itself. Raises ValueError where it has more than ``limit`` characters as JSON, or is nested too deeply
    for JSON. It is as quick as reading the JSON was: for checks that are slower, check this before them."""
    try:
        length = len(json.dumps(value))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if length > limit:
        raise ValueError(f"must have at most {limit} characters as JSON")
    return value


def _integral(value: object) -> object:
    return int(value) if type(value) is float and value.is_integer() else value


def integral_items(values: object) -> object:
    """A list whose items are integers, in which 1.0 stands for 1. Written for long lists: most have no float."""
    if isinstance(values, list) and float in set(map(type, values)):
        return [_integral(value) for value in values]
    return values


def kind_of_text(value: object) -> str:
    """The tag of a union of text and a list. Tags look like no field, so that errors can leave them out."""
    return "<list>" if isinstance(value, list) else "<text>"


ValidText = Annotated[str, AfterValidator(_encodable)]
Integer = Annotated[int, BeforeValidator(_integral)]
"""A whole number. 1.0 is one: languages with a single kind of number write 1 so. True and "1" are none."""
Unsupported = Annotated[Any, not_yet()]


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few(cls, members: Any) -> Any:
        # Collecting an error for each of a million unknown names would delay all other requests; the first will do.
        if isinstance(members, dict) and len(members) > len(cls.model_fields):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            unknown = next(name for name in members if name not in known)
            raise PydanticCustomError("unknown_member", "has an unknown member", {"name": unknown})
        return members


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
