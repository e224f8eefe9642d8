"""The grammar of tool calls: free text, or calls whose name and arguments follow the offered functions.

A model writes a call in Hermes' format: ``<tool_call>`` around a JSON object with a name and arguments. The grammar
fixes every byte of it but the name and the arguments, so ``router.generation.tool_parser`` can parse calls while they
are generated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.api import TOOL_CALL_END, TOOL_CALL_START, Grammar

NAME_PREFIX, ARGUMENTS_PREFIX = '\n{"name": ', ', "arguments": '
"""What stands between the start of a call and the name, and between the name and the arguments."""

# As the engine writes JSON elsewhere, so that most of an object's syntax is forced.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class Function:
    """A function that may be called. ``parameters`` is the JSON schema of its arguments; None: it takes none."""

    name: str
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The functions that an answer may call. ``required``: it must call one; ``parallel``: it may call several."""

    functions: Sequence[Function]
    required: bool
    parallel: bool

    @property
    def grammar(self) -> Grammar:
        """In llguidance's dialect of Lark, where a lazy rule ends as soon as it matches."""
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
        rules += [f"call_{place}: {_call(function)}" for place, function in enumerate(self.functions)]
        return Grammar("lark", "\n".join(rules), param="tools", label="schema of a tool")


def _call(function: Function) -> str:
    name = _quoted(f"{NAME_PREFIX}{json.dumps(function.name)}{ARGUMENTS_PREFIX}")
    schema = {**(function.parameters or NO_PARAMETERS), "type": "object", "x-guidance": JSON_STYLE}
    return f"{name} %json {json.dumps(schema)}"


def _quoted(text: str) -> str:
    """``text`` as a literal of Lark."""
    return json.dumps(text)
