"""The request fields ``tools`` and ``tool_choice`` of /v1/chat/completions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from engine.api import MAX_GRAMMAR_CHARS, MAX_JSON_DEPTH, Grammar, is_plain_json, unenforced_keywords
from router.openai.messages import CacheControl, FunctionName
from router.openai.validation import StrictModel, ValidText, check_json_length
from router.tool_grammar import Function, ToolUse

MAX_TOOLS = 128  # as OpenAI allows
MAX_UNENFORCED = 16  # schema keywords that the header x-manta-ignored names


def _check_parameters(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns ``schema``. Raises ValueError if it is not the schema of an object, or too long or deep."""
    if schema.get("type", "object") not in ("object", ["object"]):
        raise ValueError("must describe an object")
    if "x-guidance" in schema:
        raise ValueError("must not have 'x-guidance', which is the grammar's own")
    check_json_length(schema, MAX_GRAMMAR_CHARS)
    if not is_plain_json(schema):
        raise ValueError(f"must be nested at most {MAX_JSON_DEPTH} deep, and hold no half of a surrogate pair")
    return schema


class FunctionDefinition(StrictModel):
    """A function that the model may call."""

    name: FunctionName
    description: ValidText | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(_check_parameters)] | None = None
    strict: bool | None = None  # whether a schema with keywords that are not enforced is refused
    cache_control: CacheControl | None = None


class Tool(StrictModel):
    """An item of ``tools``."""

    type: Literal["function"]
    function: FunctionDefinition
    cache_control: CacheControl | None = None

    @property
    def has_cache_control(self) -> bool:
        """Whether ``cache_control`` is set in the tool or its function."""
        return self.cache_control is not None or self.function.cache_control is not None

    @property
    def template_json(self) -> str:
        """The tool in the form that the chat template gets: JSON without ``cache_control``."""
        unseen: Any = {"cache_control": True, "function": {"cache_control"}}
        return self.model_dump_json(exclude_none=True, exclude=unseen)


def schema_characters(tools: Sequence[Tool]) -> int:
    """Returns the total number of characters of the tools' schemas as JSON."""
    return sum(len(json.dumps(tool.function.parameters)) for tool in tools if tool.function.parameters is not None)


class FunctionReference(StrictModel):
    """The name of a function in ``tool_choice``."""

    name: FunctionName


class ToolReference(StrictModel):
    """A tool in ``tool_choice``. As the whole of ``tool_choice`` it means that the answer must call this tool."""

    type: Literal["function"]
    function: FunctionReference


class AllowedTools(StrictModel):
    """The member ``allowed_tools`` of ``tool_choice``: the tools that the answer may call, or of which it must call
    one.

    ``mode`` is ``auto`` or ``required`` accordingly.
    """

    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolReference], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]


class AllowedToolsChoice(StrictModel):
    """The value of ``tool_choice`` that restricts the tools to some of those offered."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _tool_choice_tag(value: object) -> str:
    """Returns the union tag of a ``tool_choice``."""
    if isinstance(value, str):
        return "<mode>"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "<allowed>" if kind == "allowed_tools" else "<named>"


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[ToolReference, Tag("<named>")]
    | Annotated[AllowedToolsChoice, Tag("<allowed>")],
    Discriminator(_tool_choice_tag),
]


def tool_use_of(
    tools: Sequence[Tool],
    choice: str | ToolReference | AllowedToolsChoice | None,
    parallel: bool | None,
    text_grammar: Grammar | None = None,
) -> ToolUse | None:
    """Returns the tool calls that an answer may have; None: none.

    ``choice`` and ``parallel`` are ``tool_choice`` and ``parallel_tool_calls``. ``text_grammar`` constrains an answer
    without tool calls. Raises PydanticCustomError if ``choice`` names a function that is not among ``tools``.
    """
    functions = {tool.function.name: tool.function for tool in tools}
    if choice == "none" or not functions:
        return None
    required = choice == "required"
    if isinstance(choice, ToolReference):
        functions, required = _functions_named(functions, [choice]), True
        parallel = False
    elif isinstance(choice, AllowedToolsChoice):
        functions, required = (
            _functions_named(functions, choice.allowed_tools.tools),
            choice.allowed_tools.mode == "required",
        )
    offered = tuple(Function(each.name, each.parameters, bool(each.strict)) for each in functions.values())
    return ToolUse(offered, required, parallel is not False, text_grammar)


def _functions_named(
    functions: dict[str, FunctionDefinition], names: Sequence[ToolReference]
) -> dict[str, FunctionDefinition]:
    """Returns those of ``functions`` that ``names`` refer to. Raises PydanticCustomError for an unknown name."""
    wanted = dict.fromkeys(each.function.name for each in names)
    missing = [name for name in wanted if name not in functions]
    if missing:
        raise PydanticCustomError("misplaced", "names a function that is none of the tools", {"name": "tool_choice"})
    return {name: functions[name] for name in wanted}


def unenforced_keyword_paths(tools: Sequence[Tool], use: ToolUse) -> list[str]:
    """Returns the schema keywords that structured output does not enforce, each with the tool's path in the request.

    Beyond MAX_UNENFORCED, the last item counts the rest. Tools with ``strict`` are left out: their schemas are refused.
    """
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
    """Returns the keyword as it may stand in a header, whose list is separated by commas.

    The client chooses the text of a keyword such as ``format:NAME``; other characters become ``?``.
    """
    return "".join(char if char.isascii() and char.isprintable() and char != "," else "?" for char in keyword[:64])
