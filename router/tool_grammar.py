"""The grammar for answers that may have tool calls. It constrains the name and the arguments of every call.

A model writes a tool call in Hermes' format: ``<tool_call>`` and ``</tool_call>`` around a JSON object with ``name``
and ``arguments``. The grammar leaves open only the text, the name and the arguments. All other characters of a call are
fixed, so that ``router.generation.tool_parser`` can parse calls while they are generated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.api import (
    JSON_STYLE,
    TOOL_CALL_END,
    TOOL_CALL_START,
    Grammar,
    unenforced_keywords,
    without_unenforced,
)

NAME_PREFIX, ARGUMENTS_PREFIX = '\n{"name": ', ', "arguments": '
"""The fixed text before the name of a tool call, and between its name and its arguments."""

PLAIN = " ,:;=_-!%@'\""  # characters beside letters and digits that need no escape in a pattern
NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class Function:
    """A function that may be called. ``parameters`` is the JSON schema of its arguments; None: it takes no arguments.

    ``strict``: the engine refuses a schema with keywords that cannot be enforced. Otherwise those keywords are ignored.
    """

    name: str
    parameters: Mapping[str, Any] | None = None
    strict: bool = True


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tool calls that an answer may have.

    ``required``: the answer must call a function. ``parallel``: it may have several calls. ``text_grammar`` constrains
    an answer without calls and may be of any kind but ``lark``. If it is set, an answer is either tool calls alone or
    text that matches this grammar. None: any text, and calls may follow text.
    """

    functions: Sequence[Function]
    required: bool
    parallel: bool
    text_grammar: Grammar | None = None

    @property
    def text_before_calls(self) -> bool:
        """Whether tool calls may follow text in one answer."""
        return not self.required and self.text_grammar is None

    @property
    def grammar(self) -> Grammar:
        """The grammar of the whole answer, in llguidance's dialect of Lark: a lazy rule ends as soon as it matches.

        Raises ValueError if ``text_grammar`` is itself a Lark grammar.
        """
        rules = ["%llguidance {}"]
        body = " | ".join(f"call_{place}" for place in range(len(self.functions)))
        more = f'("\\n" {_quoted(TOOL_CALL_START)} call)*' if self.parallel else ""
        if self.required:
            rules.append(f"start: {_quoted(TOOL_CALL_START)} call {more}")
        elif self.text_grammar is not None:
            rules += [f"start: form | {_quoted(TOOL_CALL_START)} call {more}", *_text_rules(self.text_grammar)]
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
        param, label = self._origin
        return Grammar("lark", "\n".join(rules), param=param, label=label)

    @property
    def _origin(self) -> tuple[str, str]:
        """The ``param`` and the ``label`` of the grammar: the request field that its errors name, and the words for it.

        An error may come from a tool's schema or from ``text_grammar``. A regular expression is the likelier cause, so
        its field is named, unless a strict schema is certain to be refused.
        """
        if self.text_grammar is None:
            return "tools", "The schema of a tool"
        if self.text_grammar.kind != "regex" or any(map(_is_refused, self.functions)):
            return "tools", "The schema of a tool, or the form of the answer,"
        return self.text_grammar.param, "The pattern of the answer, or the schema of a tool,"


def _is_refused(function: Function) -> bool:
    """Whether the engine is certain to refuse the schema of ``function``."""
    return function.strict and bool(unenforced_keywords(function.parameters or {}))


def _call(function: Function) -> str:
    """Returns the body of the rule for a call of ``function``."""
    name = _quoted(f"{NAME_PREFIX}{json.dumps(function.name)}{ARGUMENTS_PREFIX}")
    parameters = function.parameters or NO_PARAMETERS
    options = {**JSON_STYLE, **({} if function.strict else {"lenient": True})}
    if not function.strict:
        enforced = without_unenforced(parameters)
        parameters = enforced if isinstance(enforced, Mapping) else parameters
    schema = {**parameters, "type": "object", "x-guidance": options}
    return f"{name} %json {json.dumps(schema)}"


def _text_rules(grammar: Grammar) -> list[str]:
    """Returns the Lark rule ``form`` for ``grammar``, with its terminals.

    The text must not begin like a tool call. JSON never does. Patterns and choices that would are excluded. Raises
    ValueError for a Lark grammar.
    """
    match grammar.kind:
        case "json_schema":
            schema = json.loads(grammar.source)
            return [_json_rule({} if schema is True else schema)]
        case "json_object":
            return [_json_rule({"type": "object"})]
        case "regex":
            return ["form: FORM", rf"FORM: {_pattern(grammar.source)} & ~/{TOOL_CALL_START}(.|\n)*/"]
        case "choice":
            choices = "|".join(map(_escaped, json.loads(grammar.source)))
            return ["form: FORM", rf"FORM: {_pattern(choices)} & ~/{TOOL_CALL_START}(.|\n)*/"]
        case "lark":
            raise ValueError("a Lark grammar cannot be the text beside tool calls")


def _json_rule(schema: Mapping[str, Any]) -> str:
    return f"form: %json {json.dumps({**schema, 'x-guidance': JSON_STYLE})}"


def _pattern(pattern: str) -> str:
    """Returns ``pattern`` as a Lark terminal. Slashes and line breaks, which would end the terminal, are escaped."""
    escapes = {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    return f"/{''.join(escapes.get(part, part) for part in parts)}/"


def _escaped(text: str) -> str:
    """Returns a pattern that matches ``text`` and nothing else."""
    return "".join(char if char.isalnum() or char in PLAIN else f"\\x{{{ord(char):X}}}" for char in text)


def _quoted(text: str) -> str:
    """Returns ``text`` as a Lark string literal."""
    return json.dumps(text)
