"""The form that an answer is to have: OpenAI's ``response_format``, and what vLLM's users know."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from engine.api import MAX_GRAMMAR_CHARS, Grammar
from router.openai.validation import MAX_LIST_ITEMS, StrictModel, ValidText, short_json


def _small(schema: dict[str, Any] | bool) -> dict[str, Any] | bool:
    if schema is False:
        raise ValueError("must allow something; the schema false allows no JSON at all")
    return short_json(schema, MAX_GRAMMAR_CHARS)


def _is_schema(text: str) -> str:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("must be a JSON schema, or one written as a string") from None
    if not isinstance(schema, dict) and schema is not True:
        raise ValueError("must be a schema: an object, or true")
    return text


def _is_finished(pattern: str) -> str:
    """Beside tools a pattern stands within a larger grammar, whose error would name the tools."""
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        raise ValueError("must not end in a backslash that escapes nothing")
    return pattern


def _are_short(choices: list[str]) -> list[str]:
    return short_json(choices, MAX_GRAMMAR_CHARS)


Schema = Annotated[dict[str, Any] | bool, AfterValidator(_small)]
Source = Annotated[ValidText, Field(min_length=1, max_length=MAX_GRAMMAR_CHARS)]
Pattern = Annotated[Source, AfterValidator(_is_finished)]
Choices = Annotated[
    list[Annotated[ValidText, Field(min_length=1, max_length=4096)]],
    Field(min_length=1, max_length=MAX_LIST_ITEMS, fail_fast=True),
    AfterValidator(_are_short),
]


class TextFormat(StrictModel):
    type: Literal["text"]


class JsonObjectFormat(StrictModel):
    type: Literal["json_object"]


class JsonSchema(StrictModel):
    name: Annotated[ValidText, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: ValidText | None = None
    schema_: Schema | None = Field(None, alias="schema")  # None: any JSON
    strict: bool | None = None  # every schema is followed to the letter


class JsonSchemaFormat(StrictModel):
    type: Literal["json_schema"]
    json_schema: JsonSchema


def _kind(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"<{kind}>" if kind in ("text", "json_object", "json_schema") else "<text>"


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JsonObjectFormat, Tag("<json_object>")]
    | Annotated[JsonSchemaFormat, Tag("<json_schema>")],
    Discriminator(_kind),
]


GuidedJson = (
    Annotated[Schema, Tag("<schema>")]
    | Annotated[ValidText, Field(max_length=MAX_GRAMMAR_CHARS), AfterValidator(_is_schema), Tag("<text>")]
)


def kind_of_schema(value: object) -> str:
    """The tag of a schema that may come as JSON in a string."""
    return "<text>" if isinstance(value, str) else "<schema>"


def schema_grammar(schema: dict[str, Any] | bool | str) -> Grammar:
    """JSON by a schema."""
    return Grammar("json_schema", schema) if isinstance(schema, str) else Grammar.json_schema(schema)


class StructuredOutputs(StrictModel):
    """vLLM's newer field: one of its members says what the answer looks like."""

    json_: Annotated[GuidedJson, Discriminator(kind_of_schema)] | None = Field(None, alias="json")
    regex: Pattern | None = None
    choice: Choices | None = None
    grammar_: Source | None = Field(None, alias="grammar")
    json_object: bool | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        asked = (self.json_, self.regex, self.choice, self.grammar_, self.json_object or None)
        if sum(each is not None for each in asked) != 1:
            raise ValueError("must have exactly one of json, regex, choice, grammar and json_object")
        return self

    @property
    def grammar(self) -> Grammar:
        """As the engine takes it."""
        if self.json_ is not None:
            return schema_grammar(self.json_)
        if self.regex is not None:
            return Grammar.regex(self.regex)
        if self.choice is not None:
            return Grammar.choice(self.choice)
        return Grammar.lark(self.grammar_) if self.grammar_ is not None else Grammar.json_object()


def grammar_of_format(form: TextFormat | JsonObjectFormat | JsonSchemaFormat | None) -> Grammar | None:
    """What the engine is asked for; None for any text."""
    match form:
        case JsonObjectFormat():
            return Grammar.json_object()
        case JsonSchemaFormat(json_schema=described):
            return Grammar.json_schema(True if described.schema_ is None else described.schema_)
        case _:
            return None
