"""Validation of request bodies: strict pydantic models, shared field types, and errors that name the wrong field."""

from __future__ import annotations

import json
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from router.errors import InvalidRequestError

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")

MAX_LIST_ITEMS = 2048
"""The most items of a list of messages, content parts or prompts. Checking a longer one would delay other requests."""


def _check_encodable(text: str) -> str:
    """Returns ``text``. Raises PydanticCustomError for U+0000 and for an unpaired surrogate."""
    if "\x00" in text:
        raise PydanticCustomError("null_character", "must not contain the character U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("surrogate", "must not contain half of a surrogate pair") from None
    return text


def unsupported_except(*neutral: object) -> BeforeValidator:
    """Returns the validator for a field that is not supported.

    null and the ``neutral`` values are accepted, because they ask for nothing. The validator refuses all others with
    PydanticCustomError; it never ignores them.
    """

    def check(value: object) -> object:
        # Types are compared too, because True == 1 and False == 0.
        if value is None or any(type(value) is type(each) and value == each for each in neutral):
            return value
        if not neutral:
            raise PydanticCustomError("unsupported", "is not supported yet")
        accepted = " or ".join(json.dumps(each) for each in neutral)
        raise PydanticCustomError("unsupported", "only {accepted} is supported so far", {"accepted": accepted})

    return BeforeValidator(check)


def check_pair_count(value: object) -> object:
    """Returns ``value``. Raises PydanticCustomError for more than 16 pairs, OpenAI's limit for ``metadata``."""
    if isinstance(value, dict) and len(value) > 16:
        raise PydanticCustomError("too_long", "must have at most 16 pairs")
    return value


def check_json_length(value: T, limit: int) -> T:
    """Returns ``value``. Raises ValueError if it has more than ``limit`` characters as JSON, or is nested too deeply.

    The check takes about as long as parsing the JSON did. Slower checks of the same value belong after it.
    """
    try:
        length = len(json.dumps(value))
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if length > limit:
        raise ValueError(f"must have at most {limit} characters as JSON")
    return value


def _integral(value: object) -> object:
    """Returns a whole float such as 1.0 as an int, and anything else unchanged."""
    return int(value) if type(value) is float and value.is_integer() else value


def integral_items(values: object) -> object:
    """Returns the list with whole floats such as 1.0 as ints. A list without floats, the usual case, is returned as it
    is, not copied."""
    if isinstance(values, list) and float in set(map(type, values)):
        return [_integral(value) for value in values]
    return values


def text_or_list_tag(value: object) -> str:
    """Returns the pydantic union tag of a field that is a string or a list.

    Tags have angle brackets, which no field name has, so that ``_field_name`` can leave them out of errors.
    """
    return "<list>" if isinstance(value, list) else "<text>"


ValidText = Annotated[str, AfterValidator(_check_encodable)]
Integer = Annotated[int, BeforeValidator(_integral)]
"""An integer. 1.0 is accepted for 1, since languages with one number type may write it so; True and "1" are not."""
Unsupported = Annotated[Any, unsupported_except()]
"""A field that is not supported: any value but null is refused."""


class StrictModel(BaseModel):
    """The base of all request models: types are not coerced, unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_members(cls, members: Any) -> Any:
        # pydantic would collect an error for each of a million unknown names, and delay all other requests meanwhile.
        if isinstance(members, dict) and len(members) > len(cls.model_fields):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            unknown = next(name for name in members if name not in known)
            raise PydanticCustomError("unknown_member", "has an unknown member", {"name": unknown})
        return members


def parse(model: type[Model], body: bytes) -> Model:
    """Validates the JSON in ``body`` against the pydantic class ``model``. Returns the instance.

    Raises InvalidRequestError if ``body`` is no JSON object, and for a wrong field, naming the first one.
    """
    document = _load(body)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise _error_of(error.errors(include_url=False)[0], document) from None
    except RecursionError:
        raise InvalidRequestError("The request is nested too deeply.", "invalid_json") from None


def _load(body: bytes) -> dict[str, Any]:
    """Returns the JSON object in ``body``. Raises InvalidRequestError for anything else, NaN and Infinity included."""

    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        document = json.loads(body, parse_constant=refuse_constant)
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError also for invalid UTF-8 and huge integers
        reason = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise InvalidRequestError(f"The body of the request is not valid JSON: {reason}.", "invalid_json") from None
    if not isinstance(document, dict):
        raise InvalidRequestError("The body of the request must be a JSON object.", "invalid_json")
    return document


def _error_of(error: ErrorDetails, document: dict[str, Any]) -> InvalidRequestError:
    """Returns pydantic's ``error`` about ``document`` as a refusal that names the field."""
    location = error["loc"]
    if error["type"] in ("unknown_member", "misplaced"):
        location = (*location, error["ctx"]["name"])
    param = _field_name(location, document)
    if not param:  # the name of the field is itself not valid text
        return InvalidRequestError("The names of parameters must be valid text.", "invalid_json")
    if error["type"] in ("extra_forbidden", "unknown_member"):
        return InvalidRequestError(f"Unrecognized request argument supplied: {param}.", "unknown_parameter", param)
    if error["type"] == "missing":
        return InvalidRequestError(f"Missing required parameter: '{param}'.", "missing_required_parameter", param)
    code = "unsupported_parameter" if error["type"] == "unsupported" else "invalid_value"
    message = _message_of(error)
    return InvalidRequestError(f"Invalid '{param}': {message}.", code, param)


def _message_of(error: ErrorDetails) -> str:
    """Returns pydantic's message, which for the length of a text speaks of items."""
    if error["type"] in ("too_long", "too_short") and isinstance(error["input"], str):
        most, limit = error["type"] == "too_long", error["ctx"]
        bound = f"at most {limit['max_length']}" if most else f"at least {limit['min_length']}"
        return f"must have {bound} characters, not {limit['actual_length']}"
    return error["msg"][0].lower() + error["msg"][1:]


def _field_name(location: tuple[int | str, ...], document: Any) -> str:
    """Returns the path of a field, like ``messages[0].content``. The union tags in ``location`` are left out."""
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
    # The client chose the name of an unknown field, so what is echoed is kept short and printable.
    return name.encode("ascii", "backslashreplace").decode()[:128]
