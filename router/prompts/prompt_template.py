"""``PromptTemplate``: a version of a stored prompt, compiled: JSON document and variables in, messages out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from jinja2 import Template, TemplateError, UndefinedError, meta
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.api import MAX_JSON_DEPTH, Message, is_plain_json
from router.errors import InvalidRequestError
from router.prompts.template_budget import Budget
from router.prompts.template_sandbox import TemplateSandbox, missing_name

MAX_SOURCE = 65_536  # characters of one message
MAX_MESSAGES = 32
MAX_DOCUMENT_BYTES = 262_144
MAX_VARIABLES = 64
PROMPT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""The id of a prompt: up to 64 characters that need no escaping in a header, a URL or the name of a key in Redis."""

_SANDBOX = TemplateSandbox()


class TemplateMessage(BaseModel):
    """A message of a template. ``content`` is Jinja source."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str = Field(min_length=1, max_length=MAX_SOURCE)


class TemplateDocument(BaseModel):
    """The JSON document of a template, as an administrator writes it. ``defaults`` are the values of variables that a
    request may leave out."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    messages: Annotated[list[TemplateMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    defaults: Annotated[dict[str, Any], Field(max_length=MAX_VARIABLES)] = {}
    description: str = Field("", max_length=1_024)


class PromptTemplate:
    """A compiled version of a stored prompt. ``variables`` are the names that its messages use, ``required`` those
    without a default."""

    def __init__(self, prompt_id: str, version: int, document: TemplateDocument) -> None:
        """Raises InvalidRequestError that names the field of ``document`` at fault."""
        self.id = prompt_id
        self.version = version
        self.document = document
        self._messages = [
            (message.role, _compiled(message.content, f"messages.{place}.content"))
            for place, message in enumerate(document.messages)
        ]
        self.variables = frozenset(name for message in document.messages for name in _names(message.content))
        for name in document.defaults:
            if name not in self.variables:
                raise InvalidRequestError(f"defaults.{name}: no message uses it.", "invalid_value", f"defaults.{name}")
        if not is_plain_json(document.defaults):
            limit = f"defaults: are nested at most {MAX_JSON_DEPTH} deep, and their text is Unicode."
            raise InvalidRequestError(limit, "invalid_value", "defaults")
        self.required = self.variables - document.defaults.keys()

    @property
    def name(self) -> str:
        """``id@version``, for headers, the ledger and the partitions of the cache."""
        return f"{self.id}@{self.version}"

    def messages(self, variables: Mapping[str, Any], field: str = "prompt.variables") -> tuple[Message, ...]:
        """Returns the messages for ``variables``, which are JSON values.

        Raises InvalidRequestError that names the variable, below ``field``, if it is unknown or missing, and ``field``
        if the template cannot be rendered with these values.
        """
        for name in variables:
            if name not in self.variables:
                known = ", ".join(sorted(self.variables)) or "none"
                message = f"The prompt '{self.name}' has no variable '{_printable(name)}'. It has: {known}."
                raise InvalidRequestError(message, "unknown_prompt_variable", f"{field}.{_printable(name)}")
        budget, values = Budget(), {**self.document.defaults, **variables}
        return tuple(
            Message(role, self._rendered(template, values, budget, field)) for role, template in self._messages
        )

    def _rendered(self, template: Template, values: Mapping[str, Any], budget: Budget, field: str) -> str:
        try:
            return _SANDBOX.rendered(template, values, budget)
        except UndefinedError as error:
            if (name := missing_name(error)) is not None:
                message = f"The prompt '{self.name}' needs the variable '{name}'."
                raise InvalidRequestError(message, "missing_prompt_variable", f"{field}.{name}") from None
            raise self._unsuitable(error, field) from None
        except TemplateError as error:
            raise self._unsuitable(error, field) from None

    def _unsuitable(self, error: TemplateError, field: str) -> InvalidRequestError:
        message = (
            f"The prompt '{self.name}' cannot be rendered with these variables: {_printable(error.message or '')}."
        )
        return InvalidRequestError(message, "prompt_not_renderable", field)


def parse_template(prompt_id: str, version: int, document: bytes) -> PromptTemplate:
    """Returns the compiled template in a JSON document. Raises InvalidRequestError that names the wrong field."""
    try:
        parsed = TemplateDocument.model_validate_json(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = _printable(".".join(map(str, first["loc"])))
        message = f"{field}: {first['msg']}." if field else f"The template is not valid: {first['msg']}."
        raise InvalidRequestError(message, "invalid_value", field or None) from None
    return PromptTemplate(prompt_id, version, parsed)


def texts_of(variables: Mapping[str, Any], field: str = "prompt.variables") -> Iterator[tuple[str, str]]:
    """Yields (field, text) for each text in JSON values, such as (``prompt.variables.items[0]``, "red"). Member names
    and numbers are included, since a number may be a card number."""
    for name, value in variables.items():
        yield from _texts(value, f"{field}.{name}")


def _texts(value: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str) and value:
        yield field, value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield field, str(value)
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _texts(each, f"{field}[{place}]")
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _texts(name, field)
            yield from _texts(each, f"{field}.{name}")


def _compiled(source: str, field: str) -> Template:
    try:
        return _SANDBOX.compiled(source)
    except TemplateError as error:
        line = getattr(error, "lineno", 1)
        message = f"{field}: line {line}: {_printable(error.message or 'it is no Jinja template')}."
        raise InvalidRequestError(message, "invalid_template", field) from None


def _names(source: str) -> set[str]:
    """Returns the variables that a template uses and does not set itself."""
    return set(meta.find_undeclared_variables(_SANDBOX.parse(source))) - {"range"}


def _printable(text: str) -> str:
    """Returns a text as it may be repeated in an error: ASCII, at most 128 characters."""
    return text.encode("ascii", "backslashreplace").decode()[:128]
