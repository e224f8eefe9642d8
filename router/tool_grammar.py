"""The grammar of tool calls: text, or calls whose name and arguments follow the offered functions.

A model writes a call in Hermes' format: ``<tool_call>`` around a JSON object with a name and arguments. The grammar
fixes every byte of it but the name and the arguments, so ``router.generation.tool_parser`` can parse calls while they
are generated.
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
"""What stands between the start of a call and the name, and between the name and the arguments."""

PLAIN = " ,:;=_-!%@'\""  # characters that mean themselves in a pattern
NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class Function:
    """A function that may be called. ``parameters`` is the JSON schema of its arguments; None: it takes none.

    ``strict``: a schema that cannot be followed to the letter is refused. Otherwise the grammar leaves out keywords
    that cannot be enforced.
    """

    name: str
    parameters: Mapping[str, Any] | None = None
    strict: bool = True


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The functions that an answer may call. ``required``: it must call one; ``parallel``: it may call several.

    ``form`` is the grammar of an answer without calls, of any kind but ``lark``; None: any text, and calls may follow
    text. With a form an answer is either calls alone or text of that form.
    """

    functions: Sequence[Function]
    required: bool
    parallel: bool
    form: Grammar | None = None

    @property
    def text_before_calls(self) -> bool:
        """Whether calls may follow text."""
        return not self.required and self.form is None

    @property
    def grammar(self) -> Grammar:
        """In llguidance's dialect of Lark, where a lazy rule ends as soon as it matches.

        Raises ValueError for a form that is a Lark grammar.
        """
        rules = ["%llguidance {}"]
        body = " | ".join(f"call_{place}" for place in range(len(self.functions)))
        more = f'("\\n" {_quoted(TOOL_CALL_START)} call)*' if self.parallel else ""
        if self.required:
            rules.append(f"start: {_quoted(TOOL_CALL_START)} call {more}")
        elif self.form is not None:
            rules += [f"start: form | {_quoted(TOOL_CALL_START)} call {more}", *_form_rules(self.form)]
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
        """The field that errors name, and what they call the grammar. Of a pattern and the tools' schemas the pattern
        is the likelier fault, unless a strict schema is certain to be refused."""
        if self.form is None:
            return "tools", "The schema of a tool"
        if self.form.kind != "regex" or any(map(_is_refused, self.functions)):
            return "tools", "The schema of a tool, or the form of the answer,"
        return self.form.param, "The pattern of the answer, or the schema of a tool,"


def _is_refused(function: Function) -> bool:
    return function.strict and bool(unenforced_keywords(function.parameters or {}))


def _call(function: Function) -> str:
    name = _quoted(f"{NAME_PREFIX}{json.dumps(function.name)}{ARGUMENTS_PREFIX}")
    parameters = function.parameters or NO_PARAMETERS
    options = {**JSON_STYLE, **({} if function.strict else {"lenient": True})}
    if not function.strict:
        leaner = without_unenforced(parameters)
        parameters = leaner if isinstance(leaner, Mapping) else parameters
    schema = {**parameters, "type": "object", "x-guidance": options}
    return f"{name} %json {json.dumps(schema)}"


def _form_rules(form: Grammar) -> list[str]:
    """The rule ``form``. JSON never begins as a call does; patterns and choices are kept from it."""
    match form.kind:
        case "json_schema":
            schema = json.loads(form.source)
            return [_json_rule({} if schema is True else schema)]
        case "json_object":
            return [_json_rule({"type": "object"})]
        case "regex":
            return ["form: FORM", rf"FORM: {_pattern(form.source)} & ~/{TOOL_CALL_START}(.|\n)*/"]
        case "choice":
            choices = "|".join(map(_escaped, json.loads(form.source)))
            return ["form: FORM", rf"FORM: {_pattern(choices)} & ~/{TOOL_CALL_START}(.|\n)*/"]
        case "lark":
            raise ValueError("a Lark grammar cannot be the text beside tool calls")


def _json_rule(schema: Mapping[str, Any]) -> str:
    return f"form: %json {json.dumps({**schema, 'x-guidance': JSON_STYLE})}"


def _pattern(pattern: str) -> str:
    """``pattern`` as a terminal of Lark, which ends at a slash and at the end of the line."""
    escapes = {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    return f"/{''.join(escapes.get(part, part) for part in parts)}/"


def _escaped(text: str) -> str:
    """As a pattern that matches this text alone."""
    return "".join(char if char.isalnum() or char in PLAIN else f"\\x{{{ord(char):X}}}" for char in text)


def _quoted(text: str) -> str:
    """``text`` as a literal of Lark."""
    return json.dumps(text)
