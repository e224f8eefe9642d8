"""Tools: what a client may offer and ask for, and what that makes of the form of an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from engine.api import MAX_JSON_DEPTH, TOOL_CALL_END, TOOL_CALL_START, Grammar, is_plain_json
from router.openai.response_format import MAX_SCHEMA_CHARS
from router.openai.validation import StrictModel, Text

MAX_TOOLS = 128  # as OpenAI allows
HEAD, ARGUMENTS = '\n{"name": ', ', "arguments": '
# As the engine writes JSON elsewhere, so that most of an object's syntax is forced.
STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}

FunctionName = Annotated[Text, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


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
    description: Text | None = None
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
    arguments: Text


class CallMade(StrictModel):
    """A call in a message of the assistant that is sent back."""

    id: Text
    type: Literal["function"]
    function: CalledFunction
    index: int | None = None  # of clients that put the chunks of a stream together


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The functions that may be called; whether one must be, and whether more than one may."""

    functions: Sequence[FunctionDefinition]
    required: bool
    parallel: bool

    @property
    def grammar(self) -> Grammar:
        """Free text or calls, one after another; each has a name of one of the functions, and arguments by its
        schema. In llguidance's dialect of Lark: a lazy rule ends as soon as it matches."""
        rules = ["%llguidance {}"]
        body = " | ".join(f"call_{place}" for place in range(len(self.functions)))
        more = f'("\\n" {_quoted(TOOL_CALL_START)} call)*' if self.parallel else ""
        if self.required:
            rules.append(f"start: {_quoted(TOOL_CALL_START)} call {more}")
        else:
            rules += [
                f"start: text | head call {more}",
                "text: TEXT",
                f"head[lazy]: ANY {_quoted(TOOL_CALL_START)}",
                r"ANY: /(.|\n)*/",
                rf"TEXT: /(.|\n)*/ & ~/(.|\n)*{TOOL_CALL_START}(.|\n)*/",
            ]
        rules.append(f"call: ({body}) {_quoted('}' + chr(10) + TOOL_CALL_END)}")
        for place, function in enumerate(self.functions):
            name = _quoted(f"{HEAD}{json.dumps(function.name)}{ARGUMENTS}")
            schema = {**(function.parameters or NOTHING), "type": "object", "x-guidance": STYLE}
            rules.append(f"call_{place}: {name} %json {json.dumps(schema)}")
        return Grammar.lark("\n".join(rules))


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
    return ToolUse(tuple(functions.values()), required, parallel is not False)


def _some(functions: dict[str, FunctionDefinition], names: Sequence[NamedTool]) -> dict[str, FunctionDefinition]:
    wanted = dict.fromkeys(each.function.name for each in names)
    missing = [name for name in wanted if name not in functions]
    if missing:
        raise PydanticCustomError("misplaced", "names a function that is none of the tools", {"name": "tool_choice"})
    return {name: functions[name] for name in wanted}


def _quoted(text: str) -> str:
    """As a literal of Lark."""
    return json.dumps(text)
