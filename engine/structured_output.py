"""Structured output: the grammar that an answer must follow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

MAX_GRAMMAR_CHARS = 65_536
"""Most characters of the source of one grammar."""

JSON_STYLE: Mapping[str, Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How answers write JSON, in llguidance's options: as Python's json.dumps does, so that most of an object's syntax is
forced."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """A formal description of every valid answer.

    ``param`` names the request field that the grammar came from; errors about the grammar name that field. ``label`` is
    what error messages call the grammar, for example "The schema of a tool"; empty: named by ``kind``. Neither takes
    part in comparison: equal sources compile to one grammar. ``strict`` is of JSON schemas alone: without it, keywords
    that cannot be enforced are ignored (``unenforced_keywords`` names them); with it they are refused.
    """

    kind: Literal["json_schema", "json_object", "regex", "choice", "lark"]
    source: str
    param: str = field(default="grammar", compare=False)
    label: str = field(default="", compare=False)
    strict: bool = True

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool, strict: bool = True) -> Self:
        """JSON that is valid by ``schema``, written as Python's json.dumps does. True: any JSON."""
        return cls("json_schema", json.dumps(schema), strict=strict)

    @classmethod
    def json_object(cls) -> Self:
        """Any JSON object."""
        return cls("json_object", "")

    @classmethod
    def regex(cls, pattern: str) -> Self:
        """Text that ``pattern`` matches as a whole; Rust's syntax, without look-around."""
        return cls("regex", pattern)

    @classmethod
    def choice(cls, choices: Sequence[str]) -> Self:
        """One of ``choices``."""
        return cls("choice", json.dumps(list(choices)))

    @classmethod
    def lark(cls, text: str) -> Self:
        """A context-free grammar in the syntax of Lark; its start is ``start``."""
        return cls("lark", text)
