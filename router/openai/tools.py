"""OpenAI's fields for tools: what a client may offer, ask for and send back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from engine.api import MAX_JSON_DEPTH, is_plain_json
from router.openai.response_format import MAX_SCHEMA_CHARS
from router.openai.validation import StrictModel, ValidText
from router.tool_grammar import Function, ToolUse

MAX_TOOLS = 128  # as OpenAI allows

FunctionName = Annotated[ValidText, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


def _describes_an_object(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type", "object") not in ("object", ["object"]):
        raise ValueError("must describe an object")
    if "x-guidance" in schema:
        raise ValueError("must not have 'x-guidance', which is the grammar's own")
    if not is_plain_json(schema):
        raise ValueError(f"must be nested at most {MAX_JSON_DEPTH} deep, and hold no half of a surrogate pair")
    if len(json.dumps(schema)) > MAX_SCHEMA_CHARS:
        raise ValueError(f"must have at most {MAX_SCHEMA_CHARS} characters as JSON")
    return schema


class FunctionDefinition(StrictModel):
    name: FunctionName
    description: ValidText | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(_describes_an_object)] | None = None
    strict: bool | None = None  # every schema is followed to the letter


class Tool(StrictModel):
    type: Literal["function"]
    function: FunctionDefinition


class Named(StrictModel):
    name: FunctionName


class NamedTool(StrictModel):
    type: Literal["function"]
    function: Named


class AllowedTools(StrictModel):
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]


class AllowedToolsChoice(StrictModel):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "<mode>"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "<allowed>" if kind == "allowed_tools" else "<named>"


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[NamedTool, Tag("<named>")]
    | Annotated[AllowedToolsChoice, Tag("<allowed>")],
    Discriminator(_kind),
]


class CalledFunction(StrictModel):
    name: FunctionName
    arguments: ValidText


class CallMade(StrictModel):
    """A call in a message of the assistant that is sent back."""

    id: ValidText
    type: Literal["function"]
    function: CalledFunction
    index: int | None = None  # of clients that put the chunks of a stream together


def use_of(
    tools: Sequence[Tool], choice: str | NamedTool | AllowedToolsChoice | None, parallel: bool | None
) -> ToolUse | None:
    """What a request may call; None: nothing. Raises PydanticCustomError for names that no tool
    has."""
    functions = {tool.function.name: tool.function for tool in tools}
    if choice == "none" or not functions:
        return None
    required = choice == "required"
    if isinstance(choice, NamedTool):
        functions, required = _some(functions, [choice]), True
        parallel = False
    elif isinstance(choice, AllowedToolsChoice):
        functions, required = _some(functions, choice.allowed_tools.tools), choice.allowed_tools.mode == "required"
    offered = tuple(Function(each.name, each.parameters) for each in functions.values())
    return ToolUse(offered, required, parallel is not False)


def _some(functions: dict[str, FunctionDefinition], names: Sequence[NamedTool]) -> dict[str, FunctionDefinition]:
    wanted = dict.fromkeys(each.function.name for each in names)
    missing = [name for name in wanted if name not in functions]
    if missing:
        raise PydanticCustomError("misplaced", "names a function that is none of the tools", {"name": "tool_choice"})
    return {name: functions[name] for name in wanted}
