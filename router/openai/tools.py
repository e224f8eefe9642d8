"""OpenAI's fields for tools: what a client may offer, ask for and send back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from engine.api import MAX_GRAMMAR_CHARS, MAX_JSON_DEPTH, Grammar, is_plain_json, unenforced_keywords
from router.openai.messages import CacheControl, FunctionName
from router.openai.validation import StrictModel, ValidText, short_json
from router.tool_grammar import Function, ToolUse

MAX_TOOLS = 128  # as OpenAI allows
MAX_UNENFORCED = 16  # keywords that an answer names in its header


def _describes_an_object(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type", "object") not in ("object", ["object"]):
        raise ValueError("must describe an object")
    if "x-guidance" in schema:
        raise ValueError("must not have 'x-guidance', which is the grammar's own")
    short_json(schema, MAX_GRAMMAR_CHARS)
    if not is_plain_json(schema):
        raise ValueError(f"must be nested at most {MAX_JSON_DEPTH} deep, and hold no half of a surrogate pair")
    return schema


class FunctionDefinition(StrictModel):
    name: FunctionName
    description: ValidText | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(_describes_an_object)] | None = None
    strict: bool | None = None  # whether a schema that cannot be followed to the letter is refused
    cache_control: CacheControl | None = None


class Tool(StrictModel):
    type: Literal["function"]
    function: FunctionDefinition
    cache_control: CacheControl | None = None

    @property
    def caches(self) -> bool:
        """Whether Anthropic's field for prompt caches is set somewhere in it."""
        return self.cache_control is not None or self.function.cache_control is not None

    @property
    def description(self) -> str:
        """As the chat template sees it, in JSON."""
        unseen: Any = {"cache_control": True, "function": {"cache_control"}}
        return self.model_dump_json(exclude_none=True, exclude=unseen)


def schema_characters(tools: Sequence[Tool]) -> int:
    """Of all their schemas as JSON."""
    return sum(len(json.dumps(tool.function.parameters)) for tool in tools if tool.function.parameters is not None)


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


def use_of(
    tools: Sequence[Tool],
    choice: str | NamedTool | AllowedToolsChoice | None,
    parallel: bool | None,
    form: Grammar | None = None,
) -> ToolUse | None:
    """What a request may call; None: nothing. ``form`` is that of an answer without calls.

    Raises PydanticCustomError for names that no tool has.
    """
    functions = {tool.function.name: tool.function for tool in tools}
    if choice == "none" or not functions:
        return None
    required = choice == "required"
    if isinstance(choice, NamedTool):
        functions, required = _some(functions, [choice]), True
        parallel = False
    elif isinstance(choice, AllowedToolsChoice):
        functions, required = _some(functions, choice.allowed_tools.tools), choice.allowed_tools.mode == "required"
    offered = tuple(Function(each.name, each.parameters, bool(each.strict)) for each in functions.values())
    return ToolUse(offered, required, parallel is not False, form)


def _some(functions: dict[str, FunctionDefinition], names: Sequence[NamedTool]) -> dict[str, FunctionDefinition]:
    wanted = dict.fromkeys(each.function.name for each in names)
    missing = [name for name in wanted if name not in functions]
    if missing:
        raise PydanticCustomError("misplaced", "names a function that is none of the tools", {"name": "tool_choice"})
    return {name: functions[name] for name in wanted}


def unenforced(tools: Sequence[Tool], use: ToolUse) -> list[str]:
    """The keywords of the tools' schemas that are not enforced, each as its place and its name. A strict tool has none:
    its schema is refused instead."""
    called = {function.name for function in use.functions}
    found = [
        f"tools[{place}].function.parameters: {_printable(keyword)}"
        for place, tool in enumerate(tools)
        if tool.function.name in called and not tool.function.strict
        for keyword in unenforced_keywords(tool.function.parameters or {})
    ]
    more = len(found) - MAX_UNENFORCED
    return found if more <= 0 else [*found[:MAX_UNENFORCED], f"{more} more keywords of tools"]


def _printable(keyword: str) -> str:
    """For a header, in which commas divide a list. A format's name is the client's own text."""
    return "".join(char if char.isascii() and char.isprintable() and char != "," else "?" for char in keyword[:64])
