"""The request fields for structured output: OpenAI's ``response_format``, vLLM's ``structured_outputs`` and the types
of vLLM's older ``guided_*`` fields."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from engine.api import MAX_GRAMMAR_CHARS, Grammar
from router.openai.validation import MAX_LIST_ITEMS, StrictModel, ValidText, check_json_length


def _check_schema(schema: dict[str, Any] | bool) -> dict[str, Any] | bool:
    """Returns ``schema``. Raises ValueError for the schema ``false`` and for one that is too long."""
    if schema is False:
        raise ValueError("must allow something; the schema false allows no JSON at all")
    return check_json_length(schema, MAX_GRAMMAR_CHARS)


def _check_schema_text(text: str) -> str:
    """Returns ``text``. Raises ValueError if it is not a JSON schema."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("must be a JSON schema, or one written as a string") from None
    if not isinstance(schema, dict) and schema is not True:
        raise ValueError("must be a schema: an object, or true")
    return text


def _check_pattern_end(pattern: str) -> str:
    """Returns ``pattern``. Raises ValueError if it ends in a lone backslash.

    The engine would refuse it too. But with tools the pattern is a part of a larger grammar, and the engine's error
    would name the tools.
    """
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        raise ValueError("must not end in a backslash that escapes nothing")
    return pattern


def _check_choices_length(choices: list[str]) -> list[str]:
    """Returns ``choices``. Raises ValueError if they are too long together."""
    return check_json_length(choices, MAX_GRAMMAR_CHARS)


Schema = Annotated[dict[str, Any] | bool, AfterValidator(_check_schema)]
Source = Annotated[ValidText, Field(min_length=1, max_length=MAX_GRAMMAR_CHARS)]
Pattern = Annotated[Source, AfterValidator(_check_pattern_end)]
Choices = Annotated[
    list[Annotated[ValidText, Field(min_length=1, max_length=4096)]],
    Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True),
    AfterValidator(_check_choices_length),
]


class TextFormat(StrictModel):
    """The value of ``response_format`` for text without constraints."""

    type: Literal["text"]


class JsonObjectFormat(StrictModel):
    """The value of ``response_format`` for any JSON object."""

    type: Literal["json_object"]


class JsonSchema(StrictModel):
    """The member ``json_schema`` of ``response_format``: a schema with a name."""

    name: Annotated[ValidText, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: ValidText | None = None
    schema_: Schema | None = Field(None, alias="schema")  # None: any JSON
    strict: bool | None = None  # without effect: schemas are always enforced strictly


class JsonSchemaFormat(StrictModel):
    """The value of ``response_format`` for JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


def _format_tag(value: object) -> str:
    """Returns the union tag of a ``response_format``. Unknown types get that of text, whose error names ``type``."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"<{kind}>" if kind in ("text", "json_object", "json_schema") else "<text>"


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JsonObjectFormat, Tag("<json_object>")]
    | Annotated[JsonSchemaFormat, Tag("<json_schema>")],
    Discriminator(_format_tag),
]


GuidedJson = (
    Annotated[Schema, Tag("<schema>")]
    | Annotated[ValidText, Field(max_length=MAX_GRAMMAR_CHARS), AfterValidator(_check_schema_text), Tag("<text>")]
)


def schema_tag(value: object) -> str:
    """Returns the pydantic union tag of ``guided_json``: a schema, or a string that holds one as JSON."""
    return "<text>" if isinstance(value, str) else "<schema>"


def schema_grammar(schema: dict[str, Any] | bool | str) -> Grammar:
    """Returns the grammar for JSON that follows ``schema``. A string is taken as the schema's JSON."""
    return Grammar("json_schema", schema) if isinstance(schema, str) else Grammar.json_schema(schema)


class StructuredOutputs(StrictModel):
    """vLLM's field ``structured_outputs``. Exactly one of its members must be set; it constrains the answer."""

    json_: Annotated[GuidedJson, Discriminator(schema_tag)] | None = Field(None, alias="json")
    regex: Pattern | None = None
    choice: Choices | None = None
    grammar_: Source | None = Field(None, alias="grammar")
    json_object: bool | None = None

    @model_validator(mode="after")
    def _has_one_constraint(self) -> Self:
        asked = (self.json_, self.regex, self.choice, self.grammar_, self.json_object or None)
        if sum(each is not None for each in asked) != 1:
            raise ValueError("must have exactly one of json, regex, choice, grammar and json_object")
        return self

    @property
    def grammar(self) -> Grammar:
        """The grammar of the member that is set."""
        if self.json_ is not None:
            return schema_grammar(self.json_)
        if self.regex is not None:
            return Grammar.regex(self.regex)
        if self.choice is not None:
            return Grammar.choice(self.choice)
        return Grammar.lark(self.grammar_) if self.grammar_ is not None else Grammar.json_object()


def grammar_of_format(response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None) -> Grammar | None:
    """Returns the grammar of a ``response_format``; None for any text."""
    match response_format:
        case JsonObjectFormat():
            return Grammar.json_object()
        case JsonSchemaFormat(json_schema=described):
            return Grammar.json_schema(True if described.schema_ is None else described.schema_)
        case _:
            return None
